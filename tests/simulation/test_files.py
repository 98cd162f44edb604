import numpy as np
import pytest

import skysub
from skysub.errors import ConfigError, OutputError
from skysub.simulation.detector import simulate_detector
from skysub.simulation.files import Simulation, simulate_visits
from skysub.simulation.scene import named_scene
from skysub.simulation.truth import read_truths
from skysub.testing import assert_visit_images_equal


def simulation(output, **changes):
    arguments = {"scene": named_scene("ghosts"), "visits": 2, "detectors": 2, "shape": (120, 140), "seed": 5}
    return Simulation(output=output, **(arguments | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    calls = []
    paths = simulate_visits(simulation(folder), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return folder, paths


def test_files_hold_what_was_simulated(made):
    folder, paths = made
    assert [path.name for path in paths] == [
        f"post_isr_image_{visit}_{detector}.fits" for visit in (1, 2) for detector in (0, 1)
    ]
    expected, truth = simulate_detector(named_scene("ghosts"), 2, 1, seed=5, shape=(120, 140))
    assert_visit_images_equal(skysub.read_visit_image(paths[-1]), expected)
    truths = read_truths(folder)
    assert set(truths) == {(1, 0), (1, 1), (2, 0), (2, 1)}
    np.testing.assert_array_equal(truths[2, 1].sky, truth.sky)
    assert (folder / "truth" / truths[2, 1].image_path).resolve() == paths[-1].resolve()


def test_files_do_not_depend_on_the_number_of_processes(made, tmp_path):
    folder, _ = made
    simulate_visits(simulation(tmp_path), workers=2)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for name in files:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_a_simulation_is_not_overwritten_unless_asked(tmp_path):
    small = simulation(tmp_path, visits=1, detectors=2)
    simulate_visits(small)
    (tmp_path / "raw" / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="is not empty"):
        simulate_visits(small)
    simulate_visits(simulation(tmp_path, visits=1, detectors=1), overwrite=True)
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [
        "mine.txt",
        "post_isr_image_1_0.fits",
    ]
    assert list(read_truths(tmp_path)) == [(1, 0)]


def test_nothing_is_touched_when_the_arguments_are_wrong(tmp_path):
    with pytest.raises(ConfigError, match="no band"):
        simulate_visits(simulation(tmp_path / "new", band="w"))
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        simulate_visits(simulation(tmp_path / "file"))
