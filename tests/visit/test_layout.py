from pathlib import Path

import numpy as np
from astropy.io import fits

from skysub.visit.fits.read import companion_files, read_visit_header, read_visit_image


def test_codes_and_weights_of_decam_belong_to_the_image():
    assert companion_files("/data/c4d_170316_062107_ooi_z_ls9.fits.fz") == (
        "/data/c4d_170316_062107_ood_z_ls9.fits.fz",
        "/data/c4d_170316_062107_oow_z_ls9.fits.fz",
    )


def test_a_folder_of_that_name_is_no_product():
    assert companion_files("/data_ooi_z/c4d_ood_z.fits") == ()
    assert companion_files("/data_ooi_z/image.fits") == ()


def test_lco_frames_are_a_layout_of_their_own(tmp_path: Path):
    header = {
        "ORIGIN": "LCOGT",
        "DAY-OBS": "20251103",
        "FRAMENUM": 71,
        "INSTRUME": "fa06",
        "GAIN": 2.0,
        "RDNOISE": 4.0,
        "FILTER": "rp",
    }
    pixels = np.full((4, 5), 50, np.float32)
    codes = np.zeros((4, 5), np.uint8)
    codes[0] = [1, 2, 8, 10, 4]
    science = fits.ImageHDU(pixels, name="SCI")
    science.header.update(header)
    path = tmp_path / "lco.fits"
    fits.HDUList([fits.PrimaryHDU(), science, fits.ImageHDU(codes, name="BPM")]).writeto(path)
    found = read_visit_header(path)
    assert (found.layout, found.visit, found.detector) == ("LCO frame", 202511030071, 6)
    image = read_visit_image(path)
    planes = [
        {name for name in ("BAD", "SAT", "CR") if image.mask[0, x] & image.bits(name)} for x in range(5)
    ]
    assert planes == [{"BAD"}, {"SAT"}, {"CR"}, {"SAT", "CR"}, {"BAD"}]
    assert not image.mask[1:].any()
    np.testing.assert_allclose(image.variance, 50 / 2.0 + 4.0, rtol=1e-6)
