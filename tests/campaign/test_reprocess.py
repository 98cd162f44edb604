"""The chain of a data release: final images and tables of sources, upstream failures, kills."""

import hashlib
import os
import signal
import time

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import skysub
from skysub.campaign.chain import chained
from skysub.errors import ConfigError, NotDoneError, RecipeError
from skysub.measurement.columns import COLUMNS
from skysub.measurement.ids import SourceIds
from skysub.report.rows import label_of, row_of
from skysub.testing import make_visit_image
from skysub.visit.calibrated import calibration_of_header, restore_post_isr_image
from skysub.visit.summary_file import write_visit_summary

SHAPE = (400, 460)
VISITS, DETECTORS = (2024112400123, 12), (0, 1)
SETTINGS = ("steps.calibrate_image.fwhm=4", "steps.reprocess_visit_image.measurement.sky_sources=20")
PRODUCTS = ("visit_image_background", "visit_image", "visit_image_psf", "source", "preliminary_visit_image")


def write_raw(folder):
    folder.mkdir()
    for visit in VISITS:
        for detector in DETECTORS:
            image = make_visit_image(SHAPE, visit=visit, detector=detector, sources=60, detected=False)
            skysub.write_visit_image(image, folder / f"{visit}_{detector}.fits", compression="none")
    return folder


def run(raw, output, *settings, recipe="data_release", **options):
    return skysub.run_campaign(
        recipe,
        output,
        inputs=[f"{raw}/*.fits"],
        settings=["cluster.profile=threads", *SETTINGS, *settings],
        **options,
    )


def digest(output):
    """What a campaign has of each product, by product, visit and detector."""
    campaign = skysub.open_campaign(output)
    made = {}
    for visit in VISITS:
        for detector in DETECTORS:
            for name in PRODUCTS:
                try:
                    value = campaign.product(name, visit, detector)
                except NotDoneError:
                    continue
                made[name, visit, detector] = hashlib.sha256(_bytes(value)).hexdigest()
    return made


def _bytes(value):
    if isinstance(value, skysub.VisitImage):
        header = value.header.tostring().encode() if value.header is not None else b""
        return value.image.tobytes() + value.mask.tobytes() + value.variance.tobytes() + header
    if hasattr(value, "colnames"):
        return b"".join(np.asarray(value[name]).tobytes() for name in value.colnames)
    if isinstance(value, skysub.BackgroundList):
        return value.evaluate().tobytes() + value.uncertainty().tobytes()
    return value.coefficients.tobytes() + value.residual.tobytes()


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Folders of raw files and of a finished campaign."""
    folder = tmp_path_factory.mktemp("release")
    raw = write_raw(folder / "raw")
    outcome = run(raw, folder / "out")
    assert (outcome.done, outcome.failed) == (10, 0), outcome
    return raw, folder / "out"


def test_images_with_another_background(release):
    campaign = skysub.open_campaign(release[1])
    visit = VISITS[0]
    assert campaign.applied_background(visit, 0) == "visit_image_background"
    assert (
        campaign.applied_background(visit, 0, "preliminary_visit_image")
        == "preliminary_visit_image_background"
    )
    default = campaign.background("visit_image_background", visit, 0, "faint_light")
    finer = campaign.background("visit_image_background", visit, 0, "detection")
    assert default.evaluate().tobytes() == (
        campaign.background("visit_image_background", visit, 0).evaluate().tobytes()
    )
    assert finer.evaluate().tobytes() == (
        campaign.background("visit_image_detection_background", visit, 0).evaluate().tobytes()
    )
    image = campaign.visit_image(visit, 0)
    same = campaign.visit_image(visit, 0, background="faint_light")
    assert same.image.tobytes() == image.image.tobytes()
    own = "preliminary_visit_image_background"
    other = campaign.visit_image(visit, 0, background=own)
    factor = calibration_of_header(image.header).mean
    change = (default.evaluate() - campaign.background(own, visit, 0).evaluate()) * factor
    assert np.abs(change).max() > 1e-3
    np.testing.assert_allclose(other.image - image.image, change, rtol=1e-3, atol=1e-2)
    counts = campaign.visit_image(visit, 0, "preliminary_visit_image", background="detection")
    plain = campaign.visit_image(visit, 0, "preliminary_visit_image")
    change = campaign.background(own, visit, 0).evaluate() - finer.evaluate()
    # pixels of bright stars are rounded to float32
    rounded = 2e-3 + np.spacing(np.abs(plain.image)) + np.spacing(np.abs(counts.image))
    assert (np.abs(counts.image - plain.image - change) <= rounded).all()
    with pytest.raises(NotDoneError, match="'detection'"):
        campaign.visit_image(visit, 0, background="detction")
    with pytest.raises(NotDoneError, match="one alone"):
        campaign.background(own, visit, 0, "detection")


def test_images_and_tables_are_there(release):
    raw, output = release
    campaign = skysub.open_campaign(output)
    assert campaign.kind("source") == "table"
    for visit in VISITS:
        final = campaign.visit_image(visit, 1)
        assert final.unit == "nJy"
        assert final.photo_calib == 1.0
        assert final.psf is not None
        given = skysub.read_visit_image(raw / f"{visit}_1.fits")
        factor = calibration_of_header(final.header).mean
        assert factor == pytest.approx(given.photo_calib, rel=1e-12)
        known = np.isfinite(final.variance)
        np.testing.assert_allclose(final.variance[known], given.variance[known] * factor**2, rtol=1e-6)
        background = campaign.background("visit_image_background", visit, 1)
        back = restore_post_isr_image(final, background)
        left = np.abs(given.image - background.evaluate())
        allowed = np.spacing(np.maximum(np.abs(given.image), left))
        assert (np.abs(back.astype(np.float64) - given.image) <= allowed).all()
        # what the instrument flagged is kept, detections are found anew
        for plane in ("BAD", "SAT"):
            kept = (final.mask & final.bits(plane)) != 0
            assert (kept == ((given.mask & given.bits(plane)) != 0)).all()
        assert 0.01 < ((final.mask & final.bits("DETECTED")) != 0).mean() < 0.6
    figures = campaign.figures("reprocess_visit_image")
    for name in ("median", "stdev"):
        assert np.isfinite(figures[f"bg_subtracted_skyPixel_instFlux_{name}"]).all()
        assert np.isfinite(figures[f"bg_subtracted_skySource_flux_{name}"]).all()
    assert set(figures["calibration_psf"]) == {"calibrate_image"}
    assert set(figures["background"]) == {"visit_image_background"}


def test_reports_have_the_sky_of_calibrated_images_in_counts(release):
    campaign = skysub.open_campaign(release[1])
    row = row_of(campaign, VISITS[0], 0)
    assert (row.unit, row.counts) == ("nJy", "electron")
    level = campaign.background("visit_image_background", VISITS[0], 0).evaluate().mean()
    assert row.figures["skyBg"] == pytest.approx(level, rel=0.01)
    assert label_of("skyBg", row.unit, row.counts) == ("Sky background", "electron")
    magnitude = row.figures["zeroPoint"] - 2.5 * np.log10(level / row.figures["pixelScale"] ** 2)
    assert row.figures["skyBrightness"] == pytest.approx(magnitude, abs=0.01)


def test_sources_are_read_by_visit_column_and_condition(release):
    _, output = release
    campaign = skysub.open_campaign(output)
    everything = campaign.sources()
    assert everything.colnames == [known.name for known in COLUMNS]
    assert str(everything["psfFlux"].unit) == "nJy"
    assert everything["psfFlux"].info.description.startswith("Flux of the PSF")
    assert len(set(everything["sourceId"])) == len(everything)
    ids = SourceIds()
    for number in everything["sourceId"][::7]:
        _, visit, detector, _ = ids.taken_apart(int(number))
        assert (visit, detector) in [(v, d) for v in VISITS for d in DETECTORS]
    one = campaign.sources(visit=12, detector=1, columns=["psfFlux"])
    assert one.colnames == ["visit", "detector", "psfFlux"]
    assert set(one["detector"]) == {1}
    bright = [("psfFlux", ">", 3e4), ("detect_isPrimary", "==", True)]
    chosen = campaign.sources(columns=["ra", "psfFlux"], where=bright)
    assert chosen.colnames == ["visit", "detector", "ra", "psfFlux"]
    expected = (everything["psfFlux"].value > 3e4) & everything["detect_isPrimary"]
    assert len(chosen) == expected.sum() > 20
    either = campaign.sources(columns=[], where=[[bright[0]], [("sky_source", "==", True)]])
    assert len(either) == ((everything["psfFlux"].value > 3e4) | everything["sky_source"]).sum()
    again = campaign.sources(columns=["ra"], where=pc.field("psfFlux") > 3e4)
    assert len(again) == (everything["psfFlux"].value > 3e4).sum()
    with pytest.raises(ConfigError, match="no column 'psfflux'; did you mean 'psfFlux'"):
        campaign.sources(columns=["psfflux"])
    for where in ("psfFlux > 3", [("psfFlux", "~", 3)], [], [[("psfFlux", ">")]]):
        with pytest.raises(ConfigError, match="where"):
            campaign.sources(where=where)


def test_stars_have_the_fluxes_they_were_made_with(release):
    _, output = release
    table = skysub.open_campaign(output).sources(visit=12, detector=0)
    random = np.random.default_rng(np.random.SeedSequence([0, 12, 0]))
    places = random.random((60, 2)) * SHAPE
    fluxes = 10 ** random.uniform(3, 5, 60)
    pulls = []
    good = table["detect_isPrimary"] & ~table["pixelFlags_saturated"] & ~table["pixelFlags_bad"]
    scale = 10 ** (0.4 * (31.4 - 32.05))
    for (y, x), flux in zip(places, fluxes, strict=True):
        alone = np.sort(np.hypot(*(places - (y, x)).T))[1] > 30
        near = np.nonzero(good & (np.hypot(table["x"].value - x, table["y"].value - y) < 1))[0]
        if alone and len(near) == 1 and flux > 3000:
            pulls.append(float(table["psfFlux"].value[near[0]] / (flux * scale) - 1))
    assert len(pulls) > 8
    assert abs(np.median(pulls)) < 0.03


def test_the_files_are_partitioned_by_day_with_a_row_group_for_each_detector(release):
    _, output = release
    folder = output / "runs/0001/tables/source"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet")) == [
        "day_obs=0/visit=12.parquet",
        "day_obs=20241124/visit=2024112400123.parquet",
    ]
    file = pq.ParquetFile(folder / "day_obs=0/visit=12.parquet")
    assert file.num_row_groups == 2
    assert set(file.read_row_group(1)["detector"].to_pylist()) == {1}
    assert file.schema_arrow.field("ra").metadata[b"unit"] == b"deg"


def test_export(release, tmp_path):
    _, output = release
    from astropy.table import Table

    from skysub.campaign.export import export_products

    done = export_products(output, tmp_path / "fits", products=["visit_image", "source"], visits=[12])
    assert done.written == 4
    image = skysub.read_visit_image(tmp_path / "fits/visit_image/12/visit_image_12_0.fits")
    expected = skysub.open_campaign(output).visit_image(12, 0)
    np.testing.assert_array_equal(image.image, expected.image)
    assert image.psf is not None
    assert calibration_of_header(image.header).mean == calibration_of_header(expected.header).mean
    table = Table.read(tmp_path / "fits/source/12/source_12_0.parquet")
    assert str(table["psfFlux"].unit) == "nJy"
    assert table["ra"].description


def test_a_summary_from_upstream_and_what_it_lacks(release, tmp_path):
    raw, _ = release
    rows = [
        {"visit": 12, "detector": 0, "zeroPoint": 28.9},
        {"visit": 12, "detector": 1, "zeroPoint": np.nan},
    ]
    rows.append({"visit": VISITS[0], "detector": 1, "zeroPoint": 28.9})
    summary = tmp_path / "summary.parquet"
    write_visit_summary(rows, summary)
    outcome = run(raw, tmp_path / "out", f"tables.visit_summary={summary}", recipe="reprocess_visit_image")
    assert (outcome.done, outcome.failed) == (6, 2)
    campaign = skysub.open_campaign(tmp_path / "out")
    final = campaign.visit_image(12, 0, "visit_image")
    assert calibration_of_header(final.header).mean == pytest.approx(10.0)
    with pytest.raises(NotDoneError, match=r"12_1.fits: .*photo_calib \(empty in summary.parquet\)"):
        campaign.product("source", 12, 1)
    with pytest.raises(NotDoneError, match=r"summary.parquet has no row"):
        campaign.product("source", VISITS[0], 0)
    # a row that comes later is worked on, what was done stays
    rows += [{"visit": VISITS[0], "detector": 0, "zeroPoint": 28.9}]
    rows[1] = {"visit": 12, "detector": 1, "zeroPoint": 28.9}
    write_visit_summary(rows, summary)
    again = run(raw, tmp_path / "out", f"tables.visit_summary={summary}", recipe="reprocess_visit_image")
    assert again.failed == 0


def test_inputs_are_settled_by_what_the_recipe_has():
    steps = {"calibrate_image": {}, "reprocess_visit_image": {}}
    plain = chained(steps, {})["reprocess_visit_image"]
    assert plain.step.inputs == (
        "raw",
        "preliminary_visit_image",
        "preliminary_visit_image_background",
        "aperture_correction",
    )
    given = chained(steps, {"visit_summary": {"path": "a", "crc32c": "b"}})["reprocess_visit_image"]
    assert given.step.tables == ("visit_summary",)
    assert given.key() != plain.key()
    with pytest.raises(RecipeError, match="needs 'preliminary_visit_image'"):
        chained({"reprocess_visit_image": {}}, {})


def test_kills_of_a_run_on_a_cluster_give_the_same_bits(release, tmp_path, command):
    raw, output = release
    arguments = ["run", "data_release", "--inputs", f"{raw}/*.fits", "--output", tmp_path / "out"]
    for setting in (*SETTINGS, "cluster.workers=2"):
        arguments += ["--set", setting]
    kill_and_continue(command, arguments, tmp_path / "out", kills=1)
    assert digest(tmp_path / "out") == digest(output)


@pytest.mark.long
def test_twenty_kills(release, tmp_path, command):
    raw, output = release
    arguments = ["run", "data_release", "--inputs", f"{raw}/*.fits", "--output", tmp_path / "out"]
    for setting in (*SETTINGS, "cluster.workers=2"):
        arguments += ["--set", setting]
    kill_and_continue(command, arguments, tmp_path / "out", kills=20)
    assert digest(tmp_path / "out") == digest(output)


def kill_and_continue(command, arguments, output, *, kills):
    """Start, kill -9 everything a while after the first unit is done, and in the end let it finish."""
    for number in range(kills):
        process = command(*arguments)
        begun, patience = len(units(output)), time.monotonic() + 120
        while process.poll() is None and len(units(output)) <= begun and time.monotonic() < patience:
            time.sleep(0.02)
        time.sleep(0.1 * (number % 7))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    process = command(*arguments)
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text


def units(output):
    return list(output.rglob("units/**/*")) if output.exists() else []
