"""The verbs of campaigns: plan, run, status, export; what they print and how they exit."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

import skysub
from skysub.cli import main
from skysub.visit.planes import MaskPlanes

QUICK = ["--cluster", "threads", "--set", "steps.background.fit.superpixel=32"]


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for detector in (4, 5):
        skysub.write_visit_image(
            skysub.VisitImage(
                image=rng.normal(700, 20, (96, 128)).astype(np.float32),
                mask=np.zeros((96, 128), np.int32),
                planes=MaskPlanes({"BAD": 0}),
                variance=np.full((96, 128), 400, np.float32),
                visit=31,
                detector=detector,
                band="i",
            ),
            folder / f"d{detector}.fits",
        )
    return folder


def test_from_plan_to_export(raw, tmp_path, capsys):
    out = str(tmp_path / "out")
    common = ["background", "--inputs", f"{raw}/*.fits", "--output", out, *QUICK]
    assert main(["plan", *common]) == 0
    said = capsys.readouterr().out
    assert "2 detectors of 1 visits, bands i" in said
    assert "96 x 128" in said
    assert "2 units; 0 are done already" in said
    assert "GB to be written" in said
    assert not (tmp_path / "out").exists()

    assert main(["run", *common]) == 0
    said = capsys.readouterr()
    assert "2 units done in" in said.out
    assert "background: 2 of 2 done" in said.err

    assert main(["run", *common]) == 0
    assert "nothing to do: 2 units are done" in capsys.readouterr().out

    assert main(["status", out]) == 0
    assert "2 of 2 units done" in capsys.readouterr().out
    assert main(["status", out, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["counts"] == {"done": 2, "failed": 0, "waiting": 0, "left": 0, "unreadable": 0}
    assert status["visits"][0]["visit"] == 31

    fits_folder = tmp_path / "fits"
    assert main(["export", out, "--to", str(fits_folder)]) == 0
    assert "4 files" in capsys.readouterr().out
    campaign = skysub.open_campaign(out)
    path = fits_folder / "preliminary_visit_image/31/preliminary_visit_image_31_4.fits"
    exported, made = skysub.read_visit_image(path), campaign.visit_image(31, 4)
    np.testing.assert_array_equal(exported.image, made.image)
    np.testing.assert_array_equal(exported.mask, made.mask)
    np.testing.assert_array_equal(exported.variance, made.variance)
    assert (exported.visit, exported.detector, exported.band) == (31, 4, "i")
    product = "preliminary_visit_image_background"
    path = fits_folder / f"{product}/31/{product}_31_4.fits"
    with fits.open(path) as hdus:
        layers = campaign.background(product, 31, 4)
        np.testing.assert_array_equal(hdus[0].data, layers[0].statistics.mean)


def test_exit_codes(raw, tmp_path, capsys):
    out = str(tmp_path / "out")
    (raw / "bad.fits").write_bytes(b"nonsense")
    common = ["background", "--inputs", f"{raw}/*.fits", "--output", out, *QUICK]
    assert main(["plan", *common]) == 1
    assert "unreadable, left out" in capsys.readouterr().out
    assert main(["run", *common]) == 1
    assert "skysub status" in capsys.readouterr().out
    assert main(["status", out]) == 1
    assert "unreadable" in capsys.readouterr().out
    # work that is left
    marker = tmp_path / "out/runs/0001/units/background/31.visit"
    marker.unlink()
    assert main(["status", out]) == 2
    assert "2 left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "nowhere"], "there is no campaign at nowhere"),
        (["export", "nowhere", "--to", "x"], "there is no campaign at nowhere"),
        (["run", "nothing", "--output", "x"], "there is no recipe 'nothing'"),
        (["run", "background", "--output", "x"], "names no inputs"),
        (
            ["plan", "background", "--output", "x", "--set", "cluster.kind=moon"],
            "cluster.kind must be one of local, threads",
        ),
        (
            ["plan", "background", "--output", "x", "--set", "cluster.workers=0"],
            "plan: cluster.workers: must be greater than 0 or 'auto', not 0",
        ),
        (
            ["plan", "calibrate_image", "--output", "x", "--set", "steps.calibrate_imge.x=1"],
            "did you mean 'calibrate_image'?",
        ),
        (
            ["plan", "background", "--output", "x", "--inputs", "y", "--set", "products.pixels=1"],
            "plan: --set: products.pixels: must be 'stored' or 'on_demand', not 1",
        ),
        (
            ["run", "background", "--output", "x", "--inputs", ".", "--set", "cluster.memory=lots"],
            "cluster.memory must be auto or a size",
        ),
        (["plan", "background", "--output", "x", "--inputs", "."], "is a folder: give './*.fits'"),
        (
            ["plan", "background", "--output", "x", "--inputs", ".", "--set", "steps.background.ignored=A,B"],
            "ignored: must be a list, as [A,B], not 'A,B'",
        ),
        (
            ["plan", "mixed_sources", "--output", "x", "--set", "inputs.ingest.visit=1"],
            "names 6 sources of inputs",
        ),
    ],
)
def test_errors_are_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert "Traceback" not in said


def test_export_names_what_is_there(raw, tmp_path, capsys):
    out = str(tmp_path / "out")
    main(["run", "background", "--inputs", f"{raw}/*.fits", "--output", out, *QUICK])
    capsys.readouterr()
    assert main(["export", out, "--to", str(tmp_path / "x"), "--product", "sky"]) == 1
    assert "no product 'sky'; it has preliminary_visit_image and" in capsys.readouterr().err
    assert main(["export", out, "--to", str(tmp_path / "x"), "--visit", "99"]) == 1
    assert "no such visit or detector" in capsys.readouterr().err
    assert main(["export", out, "--to", str(tmp_path / "x"), "--detector", "5"]) == 0
    assert "2 files" in capsys.readouterr().out


def test_a_plan_with_nothing_to_do_says_so(raw, tmp_path, capsys):
    out = str(tmp_path / "out")
    common = ["background", "--inputs", f"{raw}/*.fits", "--output", out, *QUICK]
    main(["run", *common])
    capsys.readouterr()
    for profile in ("threads", "local"):
        assert main(["plan", *common, "--cluster", profile]) == 0
        said = capsys.readouterr().out
        assert "nothing: 2 units are done in" in said
        assert "new" not in said


def test_an_output_that_cannot_be_made_is_one_line(raw, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    inputs = ["background", "--inputs", f"{raw}/*.fits", *QUICK]
    for verb in ("plan", "run"):
        assert main([verb, *inputs, "--output", str(tmp_path / "file")]) == 1
        assert "is a file, not a folder" in capsys.readouterr().err
    assert main(["run", *inputs, "--output", "/proc/nowhere"]) == 1
    assert "cannot be made there" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error(raw, tmp_path):
    program = "from skysub.cli import main; raise SystemExit(main())"
    inputs = ["background", "--inputs", f"{raw}/*.fits", "--output", str(tmp_path / "out"), *QUICK]
    read, write = os.pipe()
    os.close(read)
    plan = subprocess.run(
        [sys.executable, "-c", program, "plan", *inputs],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (plan.returncode, plan.stderr) == (141, "")


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def interrupted(_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("skysub.cli.status.run", interrupted)
    assert main(["status", "out"]) == 130
    assert capsys.readouterr().err.strip() == "skysub status: interrupted"


def test_every_verb_counts_alike_and_says_each_thing_once(raw, tmp_path, capsys):
    out = tmp_path / "out"
    (raw / "bad.fits").write_bytes(b"nonsense")
    for detector in (6, 7):
        path = raw / f"d{detector}.fits"
        blank = skysub.read_visit_image(raw / "d4.fits").replace(detector=detector)
        skysub.write_visit_image(blank.replace(image=np.full((96, 128), np.nan, np.float32)), path)
    common = ["background", "--inputs", f"{raw}/*.fits", "--output", str(out), *QUICK]
    assert main(["run", *common]) == 1
    assert "2 units done, 2 failed, 1 input unreadable in" in capsys.readouterr().out
    assert f"input unreadable, left out: {raw / 'bad.fits'}" in (out / "runs/0001/run.log").read_text()
    assert main(["status", str(out)]) == 1
    said = capsys.readouterr().out
    assert "2 of 4 units done, 2 failed, 1 input unreadable" in said
    (line,) = [line for line in said.splitlines() if line.startswith("visit 31 detector 6")]
    assert line.count(str(raw)) == line.count("detector 6") == 1
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "2 units done, 2 failed, 1 input unreadable" in page
    assert page.count('<article class="failure">') == 2
    assert "visit 31 detector 6, visit 31 detector 7" in page


def test_a_mapping_can_be_set_with_inputs(raw, tmp_path, capsys):
    inputs = ["background", "--inputs", f"{raw}/d4.fits", "--output", str(tmp_path / "out"), *QUICK]
    assert main(["run", *inputs, "--set", "inputs.ingest.visit=77"]) == 0
    capsys.readouterr()
    assert skysub.open_campaign(tmp_path / "out").units == [(77, 4)]


def test_a_report_that_cannot_be_written_reads_nothing(raw, tmp_path, capsys):
    out = str(tmp_path / "out")
    main(["run", "background", "--inputs", f"{raw}/*.fits", "--output", out, *QUICK])
    capsys.readouterr()
    for place, words in ((tmp_path, "it is a folder"), (tmp_path / "no" / "a.html", "there is no folder")):
        assert main(["report", out, "--output", str(place)]) == 1
        said = capsys.readouterr().err
        assert words in said
        assert "looking at detectors" not in said
