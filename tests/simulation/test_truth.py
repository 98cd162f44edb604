import pickle
import shutil

import numpy as np
import pytest
import zarr

from skysub.errors import TruthError
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene
from skysub.simulation.truth import read_truth, read_truths, write_truth


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    _, truth = simulate_detector(named_scene("amplifiers"), 4, 2, seed=9, shape=(200, 300))
    write_truth(truth, folder / "truth_4_2.zarr", image_path="../raw/a.fits")
    return folder, truth


def test_round_trip_keeps_everything(written):
    folder, truth = written
    back = read_truth(folder / "truth_4_2.zarr")
    assert back.scene == truth.scene
    assert back.observation == truth.observation
    assert back.seed == 9
    assert back.image_path == "../raw/a.fits"
    assert list(back.planes) == list(truth.planes)
    for name, plane in truth.planes.items():
        np.testing.assert_array_equal(back.planes[name], plane)
    np.testing.assert_array_equal(back.catalog, truth.catalog)
    np.testing.assert_array_equal(back.unusable, truth.unusable)
    np.testing.assert_array_equal(back.sky, truth.sky)


def test_a_read_truth_travels_between_processes_without_its_planes(written):
    folder, truth = written
    packed = pickle.dumps(read_truth(folder / "truth_4_2.zarr").planes)
    assert len(packed) < 2000
    np.testing.assert_array_equal(pickle.loads(packed)["airglow"], truth.planes["airglow"])


def test_smooth_planes_pack_well(written):
    folder, truth = written
    group = zarr.open_group(str(folder / "truth_4_2.zarr"), mode="r")
    assert group["airglow"].nbytes_stored() < 0.25 * truth.planes["airglow"].nbytes
    assert group["moonlight"].nbytes_stored() < 2000


def test_truths_of_a_folder(written):
    folder, _ = written
    assert list(read_truths(folder)) == [(4, 2)]


def test_what_is_no_truth_is_refused(tmp_path, written):
    with pytest.raises(TruthError, match="no truth here"):
        read_truth(tmp_path / "nothing.zarr")
    with pytest.raises(TruthError, match="holds no truth"):
        read_truths(tmp_path)
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    with pytest.raises(TruthError, match="format is None"):
        read_truths(tmp_path)
    folder, _ = written
    shutil.copytree(folder / "truth_4_2.zarr", tmp_path / "damaged.zarr")
    shutil.rmtree(tmp_path / "damaged.zarr" / "catalog" / "flux")
    with pytest.raises(TruthError, match="is damaged"):
        read_truth(tmp_path / "damaged.zarr")
    with pytest.raises(KeyError):
        read_truth(folder / "truth_4_2.zarr").planes["nonsense"]
