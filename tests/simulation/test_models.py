import numpy as np
import pytest
from astropy.io import fits

from skysub.errors import ModelFileError
from skysub.simulation.models import find_models, read_model

MODEL = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_npy_takes_visit_and_detector_from_its_name(tmp_path):
    np.save(tmp_path / "sep_run2_12_3.npy", MODEL)
    model = read_model(tmp_path / "sep_run2_12_3.npy")
    assert (model.visit, model.detector) == (12, 3)
    np.testing.assert_array_equal(model.model, MODEL)
    assert model.uncertainty is None


def test_npz_holds_uncertainty_and_numbers(tmp_path):
    np.savez(tmp_path / "any.npz", model=MODEL, uncertainty=MODEL + 1, visit=5, detector=6)
    model = read_model(tmp_path / "any.npz")
    assert (model.visit, model.detector) == (5, 6)
    np.testing.assert_array_equal(model.uncertainty, MODEL + 1)


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz"])
def test_fits_tells_its_numbers_in_the_header(tmp_path, name):
    primary = fits.PrimaryHDU()
    primary.header["VISIT"], primary.header["DETECTOR"] = 7, 8
    hdus = [primary, fits.ImageHDU(MODEL + 1, name="UNCERTAINTY"), fits.ImageHDU(MODEL, name="MODEL")]
    fits.HDUList(hdus).writeto(tmp_path / name)
    model = read_model(tmp_path / name)
    assert (model.visit, model.detector) == (7, 8)
    np.testing.assert_array_equal(model.model, MODEL)
    np.testing.assert_array_equal(model.uncertainty, MODEL + 1)
    assert model.model.dtype.isnative


def test_fits_image_alone(tmp_path):
    fits.PrimaryHDU(MODEL).writeto(tmp_path / "back-1-2.fits")
    assert read_model(tmp_path / "back-1-2.fits").detector == 2


def test_folders_are_searched(tmp_path):
    np.save(tmp_path / "b_1_1.npy", MODEL)
    np.save(tmp_path / "a_1_0.npy", MODEL)
    (tmp_path / "notes.txt").write_text("x")
    assert [path.name for path in find_models([tmp_path])] == ["a_1_0.npy", "b_1_1.npy"]


def test_folders_are_searched_as_export_writes_them(tmp_path):
    for visit in ("1", "2"):
        (tmp_path / "product" / visit).mkdir(parents=True)
        np.save(tmp_path / "product" / visit / f"product_{visit}_0.npy", MODEL)
    assert [path.name for path in find_models([tmp_path])] == ["product_1_0.npy", "product_2_0.npy"]


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        find_models([tmp_path / "none.npy"])
    with pytest.raises(ModelFileError, match="holds no model"):
        find_models([tmp_path])
    np.save(tmp_path / "model.npy", MODEL)
    with pytest.raises(ModelFileError, match="does not tell its visit"):
        read_model(tmp_path / "model.npy")
    np.save(tmp_path / "cube_1_1.npy", np.zeros((2, 3, 4)))
    with pytest.raises(ModelFileError, match="must be"):
        read_model(tmp_path / "cube_1_1.npy")
    np.savez(tmp_path / "other_1_1.npz", sky=MODEL)
    with pytest.raises(ModelFileError, match="no array 'model'"):
        read_model(tmp_path / "other_1_1.npz")
    (tmp_path / "bad_1_1.fits").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_model(tmp_path / "bad_1_1.fits")
    (tmp_path / "notes_1_1.txt").write_text("x")
    with pytest.raises(ModelFileError, match="a model is a"):
        read_model(tmp_path / "notes_1_1.txt")
    np.save(tmp_path / "objects_1_1.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_model(tmp_path / "objects_1_1.npy")
