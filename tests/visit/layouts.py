"""Visit images and files of every layout, small enough for hundreds of reads."""

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from skysub.psf.model import MoffatPsf, PsfStars
from skysub.psf.stars import Moments
from skysub.visit.fits.psf import GaussianPsf
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES, MaskPlanes

SHAPE = (60, 80)


def tan_wcs(*, sip=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = [40.3, 30.1]
    wcs.wcs.crval = [53.1 + 1e-13, -27.8]
    wcs.wcs.cd = [[-5.5e-5, 1.23456789012345e-7], [1.1e-7, 5.5e-5]]
    wcs.wcs.radesys = "ICRS"
    if sip:
        from astropy.wcs import Sip

        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], b[1, 1] = 1.2345678901234567e-6, -2.1e-6
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    return wcs


def make_visit_image(*, seed=1, shape=SHAPE, planes=None, **changes):
    rng = np.random.default_rng(seed)
    planes = planes or MaskPlanes(dict(AFW_PLANES) | {"SPIKE": 17})
    image = rng.normal(500, 25, shape).astype(np.float32)
    mask = np.zeros(shape, planes.dtype)
    for name in planes:
        y, x = rng.integers(0, shape[0], 20), rng.integers(0, shape[1], 20)
        mask[y, x] |= mask.dtype.type(planes.bits(name))
    variance = np.full(shape, 625, np.float32) + rng.random(shape, np.float32)
    if "NO_DATA" in planes:
        image[3, 4] = variance[3, 4] = np.nan
        mask[3, 4] |= mask.dtype.type(planes.bits("NO_DATA"))
    header = fits.Header({"TELESCOP": "Simonyi", "OBSERVER": "O'Neill", "HIERARCH LONGKEYWORD": 3.25})
    fields = {
        "image": image,
        "mask": mask,
        "planes": planes,
        "variance": variance,
        "unit": "electron",
        "wcs": tan_wcs(),
        "visit": 2025112200123,
        "detector": 94,
        "band": "r",
        "exposure_time": 30.0,
        "gain": 1.5,
        "read_noise": 5.25,
        "xy0": (0, 0),
        "photo_calib": 12.3,
        "psf": GaussianPsf(1.75),
        "header": header,
    }
    return VisitImage(**(fields | changes))


def make_psf(*, stars=7):
    """A PSF that varies, of numbers with all their digits."""
    rng = np.random.default_rng(9)
    x, y, flux, chi2, *moments = rng.normal(30, 5, (14, stars))
    chi2[0] = moments[3][-1] = np.nan
    return MoffatPsf(
        shape=SHAPE,
        order=2,
        coefficients=np.concatenate([[[2.0], [0.01], [-0.02]], rng.normal(0, 0.01, (3, 5))], axis=1),
        beta=2.6,
        residual=rng.normal(0, 1e-4, (11, 11)),
        stars=PsfStars(
            x=x,
            y=y,
            flux=flux,
            used=rng.random(stars) < 0.7,
            chi2=chi2,
            moments=Moments(*moments[:5]),
            model_moments=Moments(*moments[5:]),
        ),
    )


def assert_same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.tobytes() == b.tobytes()


def assert_same_visit_image(a, b):
    """Every field equal, pixels bit for bit; headers may differ by the cards that describe a file."""
    assert_same_bits(a.image, b.image)
    assert_same_bits(a.mask, b.mask)
    assert (a.variance is None) == (b.variance is None)
    if a.variance is not None:
        assert_same_bits(a.variance, b.variance)
    for name in ("planes", "unit", "visit", "detector", "band", "gain", "read_noise", "xy0", "photo_calib"):
        assert getattr(a, name) == getattr(b, name), name
    np.testing.assert_equal(a.exposure_time, b.exposure_time)
    assert getattr(a.psf, "sigma", None) == getattr(b.psf, "sigma", None)
    assert (a.wcs is None) == (b.wcs is None)
    if a.wcs is not None:
        points = [0, 31.5, 59], [0, 17.25, 79]
        assert np.array_equal(a.wcs.all_pix2world(*points, 0), b.wcs.all_pix2world(*points, 0))


def rewrite(hdus, path):
    """Write changed HDUs without the sums of their headers, which astropy keeps as they were."""
    for hdu in hdus:
        hdu.header.remove("CHECKSUM", ignore_missing=True)
    hdus.writeto(path, overwrite=True)


def write_decam(folder, *, version="V4.8.2", detectors=(33, 34), compress=False):
    """A triple of the Community Pipeline; returns the path of the image."""
    rng = np.random.default_rng(5)
    image_hdus, code_hdus, weight_hdus = [], [], []
    for number in detectors:
        header = fits.Header({"CCDNUM": number, "GAINA": 4.0, "RDNOISEA": 6.0, "LTV1": -1.0, "LTV2": -1.0})
        image = rng.normal(3000, 30, SHAPE).astype(np.float32)
        codes = np.zeros(SHAPE, np.int32)
        codes[2, :9] = range(9) if version >= "V3.5" else [0, 1, 2, 4, 16, 64, 128, 512, 3]
        weight = np.full(SHAPE, 1 / 900, np.float32)
        weight[5, 5] = 0
        kind = fits.CompImageHDU if compress else fits.ImageHDU
        for hdus, data in ((image_hdus, image), (code_hdus, codes), (weight_hdus, weight)):
            hdus.append(kind(data, header.copy(), name=f"N{number}"))
    primary = fits.Header(
        {
            "INSTRUME": "DECam",
            "PLVER": version,
            "EXPNUM": 630780,
            "EXPTIME": 107.0,
            "FILTER": "z DECam SDSS c0004 9260.0 1520.0",
        }
    )
    for product, hdus in (("ooi", image_hdus), ("ood", code_hdus), ("oow", weight_hdus)):
        path = folder / f"c4d_170316_062107_{product}_z_v1.fits"
        fits.HDUList([fits.PrimaryHDU(header=primary), *hdus]).writeto(path, overwrite=True)
    return folder / "c4d_170316_062107_ooi_z_v1.fits"


def write_lsst_images(path):
    """A file in the layout of lsst.images with two mask HDUs, without its JSON tree."""
    rng = np.random.default_rng(6)
    origin = {
        "CTYPE1A": "LINEAR",
        "CTYPE2A": "LINEAR",
        "CRPIX1A": 1.0,
        "CRPIX2A": 1.0,
        "CRVAL1A": 7.0,
        "CRVAL2A": 8.0,
    }
    hdus = [fits.PrimaryHDU(header=fits.Header({"FMTVER": 1, "VISIT": 12, "DETECTOR": 3}))]
    hdus[0].header["DATAMODL"] = "https://images.lsst.io/schemas/visit_image-1.1.0"
    hdus.append(
        fits.CompImageHDU(
            rng.normal(9, 1, SHAPE).astype("f4"), fits.Header(origin | {"BUNIT": "nJy"}), name="IMAGE"
        )
    )
    for version, names in ((1, ["BAD", "SATURATED", "COSMIC_RAY"]), (2, ["FAR"])):
        header = fits.Header(origin)
        for n, name in enumerate(names):
            header[f"MSKN{n:04d}"], header[f"MSKM{n:04d}"], header[f"MSKD{n:04d}"] = (
                name,
                1 << n,
                name.lower(),
            )
        header["EXTVER"] = version
        mask = np.zeros(SHAPE, np.int32)
        mask[version, :3] = [1, 1, 0] if version == 2 else [1, 2, 4]
        hdus.append(fits.CompImageHDU(mask, header, name="MASK", compression_type="GZIP_2"))
    variance = np.full(SHAPE, 1, np.float32)
    hdus.append(fits.CompImageHDU(variance, fits.Header(origin | {"BUNIT": "nJy2"}), name="VARIANCE"))
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def write_plain(path, *, bpm=True):
    rng = np.random.default_rng(7)
    header = fits.Header(
        {"ORIGIN": "LCOGT", "DAY-OBS": "20160625", "FRAMENUM": 60, "INSTRUME": "kb29", "GAIN": 2.0}
        | {"RDNOISE": 8.0, "EXPTIME": 45.0, "FILTER": "w"}
    )
    image = rng.normal(500, 25, SHAPE).astype(np.float32)
    hdus = [fits.PrimaryHDU(), fits.CompImageHDU(image, header, name="SCI")]
    bad = np.zeros(SHAPE, np.uint8)
    bad[1, :5] = [0, 1, 2, 3, 128]
    hdus += [fits.CompImageHDU(bad, name="BPM")] if bpm else []
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def write_sdss(path):
    rng = np.random.default_rng(8)
    header = fits.Header(
        {
            "RUN": 94,
            "FRAME": 139,
            "CAMROW": 5,
            "CAMCOL": 1,
            "BUNIT": "nanomaggy",
            "FILTER": "g",
            "EXPTIME": "53.9",
        }
    )
    image = rng.normal(0, 0.02, SHAPE).astype(np.float32)
    sky = np.add.outer(np.arange(15.0), 0.5 * np.arange(10)).astype(np.float32)
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("ALLSKY", "150E", dim="(10, 15)", array=sky[None]),
            fits.Column(
                "XINTERP", f"{SHAPE[1]}E", array=(np.arange(SHAPE[1]) / 8 - 0.4).astype(np.float32)[None]
            ),
            fits.Column(
                "YINTERP", f"{SHAPE[0]}E", array=(np.arange(SHAPE[0]) / 4 - 0.4).astype(np.float32)[None]
            ),
        ]
    )
    calibration = np.full(SHAPE[1], 0.004, np.float32)
    fits.HDUList([fits.PrimaryHDU(image, header), fits.ImageHDU(calibration), table]).writeto(
        path, overwrite=True
    )
    return path
