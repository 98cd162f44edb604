import io
import json
import shutil

import numpy as np
import pytest

import skysub
from skysub.cli import main
from skysub.cli.progress import Progress
from skysub.simulation.truth import read_truths


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sim")
    assert (
        main(["simulate", str(folder), "--detectors", "2", "--shape", "256x300", "--scene", "galaxy:30"]) == 0
    )
    models = folder / "models"
    models.mkdir()
    for (visit, detector), truth in read_truths(folder).items():
        np.save(models / f"model_{visit}_{detector}.npy", truth.sky + np.float32(1))
    return folder


def test_simulate_says_what_it_did(tmp_path, capsys):
    assert (
        main(["simulate", str(tmp_path), "--shape", "64x80", "--band", "g", "--compression", "lossless"]) == 0
    )
    said = capsys.readouterr()
    assert "1 images in" in said.out
    assert "simulating detectors: 1 of 1" in said.err
    assert skysub.read_visit_image(tmp_path / "raw" / "post_isr_image_1_0.fits").band == "g"
    assert main(["simulate", str(tmp_path), "--shape", "64x80"]) == 1
    assert "not empty" in capsys.readouterr().err
    assert main(["simulate", str(tmp_path), "--shape", "64x80", "--overwrite"]) == 0


@pytest.mark.parametrize("shape", ["4000", "axb", "4000x", "0x10", "-5x10"])
def test_bad_shapes_are_refused(tmp_path, capsys, shape):
    assert main(["simulate", str(tmp_path), f"--shape={shape}"]) == 1
    assert "must be like 4000x4072" in capsys.readouterr().err


def test_score_draws_pictures(made, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    assert main(["score", str(made / "models"), "--truth", str(made), "--pictures", str(tmp_path / "p")]) == 0
    assert [path.name for path in sorted((tmp_path / "p").iterdir())] == ["score_1_0.png", "score_1_1.png"]


def test_score_prints_a_table(made, capsys):
    assert main(["score", str(made / "models"), "--truth", str(made)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "+1.000" in lines[2]
    assert lines[4].split()[0] == "all"


def test_score_prints_json_and_takes_the_background_list_of_lsst(made, tmp_path, capsys):
    image = skysub.read_visit_image(made / "raw" / "post_isr_image_1_1.fits").image
    background = skysub.fit_background(image, None, skysub.BackgroundConfig(order=1, weighting=False))
    path = tmp_path / "background_1_1.fits"
    skysub.write_background(background, path)
    assert main(["score", str(path), "--truth", str(made / "truth"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert [(entry["visit"], entry["detector"]) for entry in scores["detectors"]] == [(1, 1)]
    assert 0 < scores["all"]["bias_sky"] < 30
    assert scores["all"]["large_radius"] == 30
    assert scores["all"]["aperture_mean"] is not None


def test_score_goes_without_images_that_were_moved_away(made, tmp_path, capsys):
    alone = tmp_path / "alone"
    shutil.copytree(made / "truth", alone / "truth")
    assert main(["score", str(made / "models"), "--truth", str(alone), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["aperture_mean"] is None


def test_score_names_what_does_not_match(made, tmp_path, capsys):
    np.save(tmp_path / "model_9_9.npy", np.zeros((256, 300)))
    assert main(["score", str(tmp_path / "model_9_9.npy"), "--truth", str(made)]) == 1
    assert "visit 9 detector 9, which has no truth; there is: 1/0, 1/1" in capsys.readouterr().err
    np.save(tmp_path / "again_1_0.npy", np.zeros((256, 300)))
    assert main(["score", str(made / "models"), str(tmp_path / "again_1_0.npy"), "--truth", str(made)]) == 1
    assert "are both of visit 1 detector 0" in capsys.readouterr().err
    assert main(["score", str(made / "models"), "--truth", str(tmp_path)]) == 1
    assert "holds no truth" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_redraws_on_a_terminal_and_adds_lines_elsewhere():
    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        show = Progress("working", stream=stream)
        for done in range(1, 101):
            show(done, 100)
    assert terminal.getvalue().count("\r") == 100
    assert terminal.getvalue().count("\n") == 1
    assert log.getvalue().count("\n") == 11
    assert "100 of 100" in log.getvalue().splitlines()[-1]
