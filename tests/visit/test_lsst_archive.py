"""Files for lsst.images, read by lsst.images itself; it needs Python 3.12."""

import numpy as np
import pytest

import skysub
from skysub.errors import ConfigError, VisitFileError
from skysub.visit.fits.lsst_archive import write_lsst_images
from skysub.visit.fits.psf import GaussianPsf

lsst_images = pytest.importorskip("lsst.images")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def known():
    """An image of which everything is known, with its origin off the corner of the detector."""
    from astropy.wcs import WCS

    rng = np.random.default_rng(5)
    image = rng.normal(100, 5, (60, 44)).astype(np.float32)
    image[3, 7] = np.nan
    planes = skysub.MaskPlanes({"BAD": 0, "SAT": 1, "MINE": 33})
    mask = np.zeros(image.shape, np.int64)
    mask[3, 7] = 1
    mask[50, 2] = 2 | 1 << 33
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [62.0, -37.0], [10.0, 300.0]
    wcs.wcs.cd = [[-5e-5, 1e-6], [2e-6, 6e-5]]
    return skysub.VisitImage(
        image=image,
        mask=mask,
        planes=planes,
        variance=np.full(image.shape, 25, np.float32),
        unit="electron",
        wcs=wcs,
        psf=GaussianPsf(1.7),
        photo_calib=0.25,
        visit=2024112400123,
        detector=94,
        band="r",
        exposure_time=30.0,
        xy0=(200, 1000),
        notes=("One pixel is not known.",),
    )


def test_a_visit_image(known, tmp_path):
    assert write_lsst_images(known, tmp_path / "a.fits") == "VisitImage"
    read = lsst_images.VisitImage.read(tmp_path / "a.fits")
    np.testing.assert_array_equal(read.image.array, known.image)
    np.testing.assert_array_equal(read.variance.array, known.variance)
    assert (read.bbox.y.start, read.bbox.x.start) == (1000, 200)
    assert np.argwhere(read.mask.get("SATURATED")).tolist() == [[50, 2]]
    assert np.argwhere(read.mask.get("MINE")).tolist() == [[50, 2]]
    assert np.argwhere(read.mask.get("BAD")).tolist() == [[3, 7]]
    assert read.psf.sigma == 1.7
    assert (read.obs_info.visit_id, read.obs_info.detector_num) == (2024112400123, 94)
    assert read.obs_info.exposure_time.to_value("s") == 30
    assert (read.band, read.detector.visit, read.detector.bbox) == ("r", 2024112400123, read.bbox)
    assert read.photometric_scaling(x=210, y=1010) == 0.25
    assert read.photometric_scaling.unit.is_equivalent("nJy / electron")
    assert read.metadata["skysub.note1"] == "One pixel is not known."
    there = read.sky_projection.pixel_to_sky(x=203.0, y=1007.0)
    assert there.separation(known.wcs.pixel_to_world(3.0, 7.0)).arcsec < 1e-6


def test_we_read_it_too(known, tmp_path):
    write_lsst_images(known, tmp_path / "a.fits", compression="none")
    back = skysub.read_visit_image(tmp_path / "a.fits")
    np.testing.assert_array_equal(back.image, known.image)
    np.testing.assert_array_equal(
        back.mask & back.bits("MINE", "SAT") != 0, known.mask & known.bits("MINE", "SAT") != 0
    )
    assert (back.visit, back.detector, back.band, back.xy0) == (2024112400123, 94, "r", (200, 1000))
    assert (back.photo_calib, back.psf.sigma) == (0.25, 1.7)


@pytest.mark.parametrize("lacking", ["wcs", "psf", "band", "unit"])
def test_what_is_not_known_makes_it_a_masked_image(lacking, known, tmp_path):
    less = known.replace(**{lacking: {"band": "", "unit": "furlong"}.get(lacking)})
    less = less.replace(variance=None)
    assert write_lsst_images(less, tmp_path / "a.fits") == "MaskedImage"
    read = lsst_images.MaskedImage.read(tmp_path / "a.fits")
    np.testing.assert_array_equal(read.image.array, known.image)
    assert np.isnan(read.variance.array).all()


def test_lossy(known, tmp_path):
    write_lsst_images(known, tmp_path / "a.fits", compression="lossy16")
    off = lsst_images.MaskedImage.read(tmp_path / "a.fits").image.array - known.image
    assert 0 < np.nanstd(off) < 0.5


def test_files_are_replaced_and_errors_are_ours(known, tmp_path):
    (tmp_path / "a.fits").write_text("something else")
    write_lsst_images(known, tmp_path / "a.fits")
    assert [each.name for each in tmp_path.iterdir()] == ["a.fits"]
    with pytest.raises(VisitFileError, match="cannot be written"):
        write_lsst_images(known, tmp_path / "nowhere" / "a.fits")
    with pytest.raises(ConfigError, match="compression must be one of"):
        write_lsst_images(known, tmp_path / "a.fits", compression="best")
