import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

for package in ("galsim", "scipy"):
    pytest.importorskip(package, reason=f"true skies of other code need {package}")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPE = (320, 384)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def made(kind, seed=1, **options):
    return importlib.import_module("foreign.scenes").make_scene(kind, seed, SHAPE, **options)


def judged(scene, model, **answer):
    answer = importlib.import_module("foreign.methods").Answer(
        model=(model / scene.electrons).astype(np.float32), **answer
    )
    return importlib.import_module("foreign.score").score(scene, answer)


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize(
    "kind", ["u_like", "short_read_noise", "amplifier_steps", "row_drift", "fringes", "cirrus", "aureole"]
)
def test_pixels_are_sky_and_sources_and_noise(kind, variant):
    scene = made(kind, variant=variant)
    noise = (scene.image * scene.electrons - scene.sky - scene.sources)[~scene.defects]
    assert abs(noise.mean()) < 5 * noise.std() / np.sqrt(noise.size)
    # the darkest half, where sources add no noise of their own
    dark = (scene.sources < np.median(scene.sources))[~scene.defects]
    expected = np.sqrt(scene.sky[~scene.defects][dark].mean() + scene.sigma**2 - scene.kind.sky)
    assert noise[dark].std() == pytest.approx(expected, rel=0.04)


def test_offsets_of_the_electronics_belong_to_the_true_sky(monkeypatch):
    kinds = importlib.import_module("foreign.kinds")
    drifting = dataclasses.replace(kinds.KINDS["row_drift"], rows=100.0, steps=300.0)
    monkeypatch.setitem(kinds.KINDS, "row_drift", drifting)
    scene = made("row_drift")
    noise = np.where(scene.defects, np.nan, scene.image * scene.electrons - scene.sky - scene.sources)
    left, right = (np.nanmedian(half, axis=1) for half in np.split(noise, 2, axis=1))
    assert max(abs(left).max(), abs(right).max()) < 15
    halves = [np.median(half) for half in np.split(scene.sky, 2, axis=1)]
    assert halves[1] - halves[0] == pytest.approx(300, abs=120)
    assert np.median(scene.sky, axis=1).std() > 30


def test_resampled_noise_is_correlated_and_as_large_as_said():
    scene = made("drizzled")
    noise = scene.image - scene.sky - scene.sources
    dark = (scene.sources < np.median(scene.sources)) & ~scene.defects
    assert noise[dark].std() == pytest.approx(scene.sigma, rel=0.04)
    both = dark[:, 1:] & dark[:, :-1]
    neighbours = np.mean(noise[:, 1:][both] * noise[:, :-1][both]) / noise[dark].var()
    assert 0.2 < neighbours < 0.6


def test_the_undetected_are_faint_and_part_of_the_sources():
    scene = made("deep20000_slope031_28")
    assert scene.facts["undetected"] > 100
    assert (scene.undetected >= 0).all()
    assert (scene.undetected <= scene.sources * 1.00001 + 1e-3).all()
    assert 0 < scene.undetected.sum() < 0.2 * scene.sources.sum()
    sources = importlib.import_module("foreign.sources")
    psf = sources.make_psf(scene.kind).drawImage(nx=41, ny=41, scale=1.0, method="no_pixel").array
    # nothing is sharper than the PSF: a peak of 5 sigma belongs to no source of less than that
    limit = 5 * scene.sigma / np.sqrt((psf**2).sum()) * psf.max()
    assert np.quantile(scene.undetected, 0.999) < 2 * limit


def test_a_stamp_that_the_frame_cuts_keeps_its_place():
    add = importlib.import_module("foreign.sources").add_stamp
    plane = np.zeros((4, 5), np.float32)
    stamp = np.arange(9, dtype=np.float32).reshape(3, 3)
    add(plane, 2.0, stamp, 0, 4)
    expected = np.zeros((4, 5))
    expected[:2, 3:] = 2 * stamp[1:, :2]
    np.testing.assert_array_equal(plane, expected)
    add(plane, 1.0, stamp, 9, 9)
    np.testing.assert_array_equal(plane, expected)


def test_charge_above_the_full_well_bleeds_along_the_column_and_none_is_lost():
    bleed = importlib.import_module("foreign.detector")._bleed
    electrons = np.full((40, 3), 10, np.float32)
    electrons[20, 1] = 500
    before = electrons.sum()
    bleed(electrons, 100.0)
    assert electrons.max() <= 100
    assert electrons.sum() == pytest.approx(before)
    full = np.nonzero(electrons[:, 1] > 99)[0]
    assert 17 <= full.min() < 20 < full.max() <= 23
    assert (electrons[:, [0, 2]] == 10).all()


def test_a_scene_depends_on_its_seed_alone(tmp_path):
    first, again, other = made("row_drift"), made("row_drift"), made("row_drift", 2)
    written, read = (made("row_drift", cache=tmp_path) for _ in range(2))
    for scene in (again, written, read):
        for plane in ("image", "mask", "sky", "sources", "undetected"):
            np.testing.assert_array_equal(getattr(first, plane), getattr(scene, plane))
        assert scene.facts == first.facts
    assert (other.sky != first.sky).any()
    assert (other.sources != first.sources).any()


def test_a_kind_drawn_anew_stays_what_it_is():
    kinds = importlib.import_module("foreign.kinds")
    for name, kind in kinds.KINDS.items():
        drawn = kinds.kind_of(name, "B", 1)
        assert drawn == kinds.kind_of(name, "B", 1)
        assert drawn != kinds.kind_of(name, "B", 2)
        assert drawn.sky != kind.sky
        assert drawn.full_well > 1.5 * drawn.sky
        for amount in ("fringes", "ghosts", "steps", "rows", "correlation", "aureole", "cirrus"):
            assert bool(getattr(drawn, amount)) == bool(getattr(kind, amount))
        assert drawn.target == kind.target
    with pytest.raises(KeyError, match="no kind 'r30'"):
        kinds.kind_of("r30")
    with pytest.raises(KeyError, match="no variant 'C'"):
        kinds.kind_of("cirrus", "C")


def test_no_code_is_shared_with_the_simulator():
    code = "import sys, foreign.methods, foreign.score, foreign.scenes, foreign.report\n"
    code += "print([m for m in sys.modules if m.startswith('skysub.simulation')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_level_that_is_off_is_told_from_a_shape_that_is_off():
    scene = made("u_like")
    got = judged(scene, scene.sky + 3.0, uncertainty=np.full(SHAPE, 2 / scene.electrons, np.float32))
    undetected = scene.undetected[~scene.defects].mean()
    assert got.level_t1 == pytest.approx(3.0, rel=1e-3)
    assert got.level_t2 == pytest.approx(3.0 - undetected, rel=1e-3)
    assert got.level_pull == pytest.approx((3.0 - undetected) / 2, rel=1e-3)
    assert got.rms == pytest.approx(0.0, abs=1e-4)
    assert got.pull == pytest.approx(0.0, abs=1e-4)
    left = np.where(np.arange(SHAPE[1]) < 128, -3.0, 1.5)
    got = judged(scene, scene.sky + left, uncertainty=np.full(SHAPE, 2 / scene.electrons, np.float32))
    # cells of 128 pixels: of the three columns one is 3 too low, two are 1.5 too high
    assert got.rms == pytest.approx(np.sqrt((9 + 2 * 1.5**2) / 3), rel=1e-3)
    assert got.pull == pytest.approx(got.rms / 2, rel=1e-3)
    assert got.largest == pytest.approx(3.0, rel=1e-3)
    assert got.level_t1 == pytest.approx(0.0, abs=0.02)


def test_light_that_a_model_takes_is_found():
    scene = made("galaxy150")
    smaller = dataclasses.replace(scene, facts=scene.facts | {"radius": 40.0})
    far = np.hypot(*np.ogrid[-scene.facts["y"] : 400, -scene.facts["x"] : 500])[: SHAPE[0], : SHAPE[1]] > 80
    taken = np.where(far, 0, 0.3 * scene.target)
    assert judged(smaller, scene.sky + taken + 5).lost == pytest.approx(30, rel=0.02)
    assert np.isnan(judged(scene, scene.sky).cirrus)


def test_cirrus_that_a_model_takes_is_found():
    scene = made("cirrus")
    assert judged(scene, scene.sky).cirrus == pytest.approx(1)
    assert judged(scene, scene.sky + scene.target).cirrus == pytest.approx(0, abs=1e-6)
    assert judged(scene, scene.sky + 0.5 * scene.target).cirrus == pytest.approx(0.25, rel=1e-3)
    assert np.isnan(judged(scene, scene.sky).lost)


def test_the_oracle_has_no_light_of_detected_sources_left():
    scene = made("clustered")
    methods = importlib.import_module("foreign.methods")
    mask = methods.oracle_mask(scene)
    assert 0.02 < mask.mean() < 0.51
    light = scene.sources - scene.undetected
    assert light[~mask].max() < light[mask].min()
    answer = methods.METHODS["oracle_plain"](scene)
    got = importlib.import_module("foreign.score").score(scene, answer)
    assert abs(got.level_t2) < 5 * scene.sigma / np.sqrt((~mask).sum()) + 0.1


def test_the_script_prints_lines_and_writes_a_page(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "foreign_skies.py"), "--shape", "256x256"]
    command += ["--kinds", "u_like,galaxy150", "--methods", "default,oracle", "--seeds", "1,2"]
    command += ["--output", str(tmp_path / "page.md"), "--cache", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + 2 * 2 * 3
    page = (tmp_path / "page.md").read_text()
    sections = page.split("### ")
    assert [s.splitlines()[0] for s in sections[1:]] == ["u_like", "galaxy150"]
    assert "| default |" in sections[1]
    assert "lost %" not in sections[1]
    assert "lost %" in sections[2]
    command += ["--kinds", "r30"]
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 1
    assert "unknown: r30" in wrong.stderr
