"""Templates of a finished campaign, as a file, and campaigns that name one."""

import dataclasses
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import skysub
from skysub.campaign.store.address import place_at
from skysub.campaign.template_file import latest_files
from skysub.cli import main
from skysub.errors import InputChangedError, InputsError, OutputError, TemplatesError
from skysub.testing import make_visit_image

SHAPE = (256, 320)
OFFSETS = {0: 6.0, 1: -4.0, 2: -2.0}
SETTINGS = ["cluster.profile=threads", "steps.calibrate_image.fwhm=4"]
VISITS = range(1, 5)


def _wcs(visit, detector):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [60.0 + 0.01 * (visit % 3), -30.0]
    wcs.wcs.crpix = [160 - 330 * detector, 128]
    wcs.wcs.cd = [[-5.5e-5, 0], [0, 5.5e-5]]
    return wcs


def _write(folder, visits, *, band="r", offsets=OFFSETS):
    folder.mkdir()
    for visit in visits:
        for detector, offset in offsets.items():
            made = make_visit_image(
                SHAPE,
                visit=visit,
                detector=detector,
                seed=visit,
                sources=8,
                gradient=0.0,
                detected=False,
                band=band,
            )
            image = made.image + np.float32(offset)
            made = made.replace(image=image, wcs=_wcs(visit, detector), mask=made.mask)
            skysub.write_visit_image(made, folder / f"{visit}_{detector}.fits", compression="none")
    return folder


def _run(raw, output, *settings, recipe="visit_background"):
    return skysub.run_campaign(recipe, output, inputs=[f"{raw}/*.fits"], settings=[*SETTINGS, *settings])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of raw files, of a finished campaign, and of its templates."""
    folder = tmp_path_factory.mktemp("templates")
    raw = _write(folder / "raw", VISITS)
    outcome = _run(raw, folder / "out", recipe="calibrate_image")
    assert (outcome.done, outcome.failed) == (12, 0)
    assert main(["templates", str(folder / "out"), "--output", str(folder / "t")]) == 0
    return raw, folder / "out", folder / "t"


def _file(folder):
    (path,) = folder.glob("*.fits")
    return path


def test_a_verb_makes_a_dated_file_that_says_what_it_is_of(made, capsys):
    _, out, folder = made
    path = _file(folder)
    assert path.name.startswith("templates-r-20")
    templates = skysub.read_templates(path)
    assert templates.visits == tuple(VISITS)
    assert (templates.band, templates.unit, templates.name) == ("r", "electron", path.name)
    assert templates.provenance["runs"] == "0001"
    assert templates.provenance["skysub"] == skysub.__version__
    told = [templates.offset_priors(900.0)[n].mean for n in range(3)]
    np.testing.assert_allclose(told, list(OFFSETS.values()), atol=1.5)
    # said again, nothing is lost
    assert main(["templates", str(out), "--output", str(folder)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["templates", str(out), "--output", str(folder / "x.fits"), "--band", "y"]) == 1
    assert "its bands are r" in capsys.readouterr().err


def test_a_file_gives_back_the_very_numbers(made, tmp_path):
    templates = skysub.read_templates(_file(made[2]))
    rng = np.random.default_rng(1)
    frames = rng.normal(0, 1, (2, 8, 10)).astype(np.float32)
    steps = skysub.pipeline.joint.templates.StepTemplate(
        ((0, 256, 0, 160), (0, 256, 160, 320)), rng.normal(0, 1, (2, 2)), np.ones((2, 2, 2)), np.ones(2)
    )
    one = dataclasses.replace(
        templates.detectors[1], frames=frames, frame_errors=np.array([0.1, 0.2]), steps=steps
    )
    whole = dataclasses.replace(
        templates,
        detectors={**templates.detectors, 1: one},
        frames=2,
        strengths=rng.normal(0, 1, (4, 2)),
        flags={"few_visits": "Sky of <few> visits, said at length " * 20},
    )
    path = skysub.write_templates(whole, tmp_path / "t.fits")
    back = skysub.read_templates(path)
    assert back.strengths.tobytes() == whole.strengths.tobytes()
    assert back.levels.tobytes() == whole.levels.tobytes()
    assert dict(back.flags) == {name: text.strip() for name, text in whole.flags.items()}
    for n, two in whole.detectors.items():
        found = back.detectors[n]
        assert (found.constant, found.proportional, found.deviation, found.shape) == (
            two.constant,
            two.proportional,
            two.deviation,
            two.shape,
        )
        assert found.covariance.tobytes() == two.covariance.tobytes()
    assert back.detectors[1].frames.tobytes() == frames.tobytes()
    assert back.detectors[1].frame_errors.tolist() == [0.1, 0.2]
    assert back.detectors[1].steps.boxes == steps.boxes
    assert back.detectors[1].steps.terms.tobytes() == steps.terms.tobytes()
    with pytest.raises(OutputError, match="already"):
        skysub.write_templates(whole, path)
    skysub.write_templates(whole, path, overwrite=True)


def test_what_is_no_file_of_templates_is_refused(made, tmp_path):
    with pytest.raises(TemplatesError, match="no such file"):
        skysub.read_templates(tmp_path / "none.fits")
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "other.fits")
    with pytest.raises(TemplatesError, match="FORMAT is None"):
        skysub.read_templates(tmp_path / "other.fits")
    content = bytearray(_file(made[2]).read_bytes())
    (tmp_path / "short.fits").write_bytes(content[: len(content) // 2])
    content[content.index(b"DETECTORS") + 5760] ^= 1
    (tmp_path / "flipped.fits").write_bytes(content)
    for name in ("short", "flipped"):
        with pytest.raises(TemplatesError, match=f"{name}.fits: is no sound file"):
            skysub.read_templates(tmp_path / f"{name}.fits")


def test_a_campaign_names_templates_and_follows_their_content(made, tmp_path):
    raw, _, folder = made
    new = _write(tmp_path / "new", [21])
    path = tmp_path / "templates-r-20260101.fits"
    shutil.copy(_file(folder), path)
    named = f"steps.visit_background.templates={path}"
    assert _run(new, tmp_path / "out", named).done == 4
    campaign = skysub.open_campaign(tmp_path / "out")
    sky = campaign.product("visit_sky", 21)
    assert sky.templates == path.name
    assert campaign.figures("visit_background")["templates"][0] == path.name
    assert _run(new, tmp_path / "out", named).done == 0
    # other content under the same name: the visit is done again, its detectors are not
    templates = skysub.read_templates(path)
    skysub.write_templates(dataclasses.replace(templates, provenance={"by": "hand"}), path, overwrite=True)
    assert _run(new, tmp_path / "out", named).done == 1
    # of a folder the newest of the band counts
    shutil.copy(path, tmp_path / "templates-r-20250101.fits")
    assert [each.name for each in latest_files(place_at(tmp_path))] == [path.name]
    with pytest.raises(InputsError, match="cannot be read"):
        _run(new, tmp_path / "out", f"steps.visit_background.templates={tmp_path}/gone.fits")
    with pytest.raises(InputsError, match="holds no file templates-BAND-DATE"):
        _run(new, tmp_path / "out", f"steps.visit_background.templates={raw}")


def test_templates_of_another_band_are_not_used_and_named(made, tmp_path):
    new = _write(tmp_path / "new", [31], band="i")
    path = _file(made[2])
    assert _run(new, tmp_path / "out", f"steps.visit_background.templates={path}").failed == 0
    marker = skysub.open_campaign(tmp_path / "out").marker(31, None, "visit_background")
    assert f"{path.name} are of band 'r', the visit of 'i'" in marker["flags"]["templates_unused"]


def test_a_file_that_changes_under_way_is_noticed(made, tmp_path):
    from skysub.campaign.context import files_of
    from skysub.campaign.store.runs import open_runs

    new = _write(tmp_path / "new", [41])
    path = tmp_path / "templates-r-20260101.fits"
    shutil.copy(_file(made[2]), path)
    _run(new, tmp_path / "out", f"steps.visit_background.templates={path}")
    (run,) = open_runs(place_at(tmp_path / "out"))
    assert list(files_of(run, "visit_background")) == [str(path)]
    files_of.__globals__["_content"].cache_clear()
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputChangedError, match="changed since"):
        files_of(run, "visit_background")


def test_visits_of_several_bands_are_not_mixed(tmp_path):
    raw = _write(tmp_path / "raw", [1])
    _write(tmp_path / "other", [2], band="i")
    for path in (tmp_path / "other").iterdir():
        shutil.copy(path, raw / path.name)
    _run(raw, tmp_path / "out", recipe="calibrate_image")
    with pytest.raises(TemplatesError, match=r"i \(1 visits\), r \(1 visits\): choose one"):
        skysub.templates_of_campaign(tmp_path / "out")
    with pytest.raises(TemplatesError, match="two visits at least, and 1 of 1"):
        skysub.templates_of_campaign(tmp_path / "out", band="i")
    with pytest.raises(TemplatesError, match="no visit 7"):
        skysub.templates_of_campaign(tmp_path / "out", visits=[7])
