"""LSST's own package lsst.images reads our files, and ours reads what it writes."""

import json
import subprocess

import numpy as np
import pytest

from skysub.visit.fits.read import read_visit_header, read_visit_image
from skysub.visit.fits.write import write_visit_image
from skysub.visit.ingest import IngestMap
from tests.visit.layouts import assert_same_bits, make_psf, make_visit_image


def run(python, script, *arguments):
    """Last line that a script prints in another Python."""
    done = subprocess.run(
        [python, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ""


CLIENT = """
import json, sys
import numpy as np
import lsst.images as li
from astropy.io import fits

seen = []
for path in sys.argv[1:]:
    with fits.open(path) as hdus:
        opened = li.MaskedImage.from_hdu_list(hdus)
    for image in (opened, li.MaskedImage.read_legacy(path)):
        planes = {name: np.argwhere(image.mask.get(name)).tolist() for name in image.mask.schema.names}
        seen.append({"image": image.image.array.astype(">f4").tobytes().hex(),
                     "variance": image.variance.array.astype(">f4").tobytes().hex(),
                     "planes": planes,
                     "unit": str(image.image.unit), "variance_unit": str(image.variance.unit),
                     "xy0": [image.bbox.x.start, image.bbox.y.start]})
    sky = opened.sky_projection.pixel_to_sky(x=np.array([105.0]), y=np.array([217.0]))
    seen[-2]["sky"] = [float(np.ravel(sky.ra.deg)[0]), float(np.ravel(sky.dec.deg)[0])]
print(json.dumps(seen))
"""


def test_another_client_sees_the_same(tmp_path, lsst_images_python):
    given = make_visit_image(xy0=(100, 200), psf=make_psf())
    paths = [tmp_path / f"{compression}.fits" for compression in ("lossless", "none")]
    for path in paths:
        write_visit_image(given, path, compression=path.stem)
    seen = json.loads(run(lsst_images_python, CLIENT, *paths))
    assert len(seen) == 4
    theirs = {"SAT": "SATURATED", "INTRP": "INTERPOLATED", "CR": "COSMIC_RAY", "EDGE": "DETECTION_EDGE"}
    for image in seen:
        assert bytes.fromhex(image["image"]) == given.image.astype(">f4").tobytes()
        assert bytes.fromhex(image["variance"]) == given.variance.astype(">f4").tobytes()
        assert (image["unit"], image["variance_unit"], image["xy0"]) == ("electron", "electron2", [100, 200])
        for name in given.planes:
            pixels = np.argwhere((given.mask & given.bits(name)) != 0).tolist()
            assert image["planes"][theirs.get(name, name)] == pixels
    for image in seen[::2]:
        expected = given.wcs.all_pix2world([5.0], [17.0], 0)
        np.testing.assert_allclose(image["sky"], np.ravel(expected), rtol=0, atol=1e-9)


def test_masked_image_of_two_mask_extensions(tmp_path, lsst_images_python):
    script = (
        "import sys, numpy as np, astropy.units as u, lsst.images as li\n"
        "names = ['BAD', 'SATURATED'] + [f'P{i}' for i in range(38)]\n"
        "schema = li.MaskSchema([li.MaskPlane(name, name) for name in names])\n"
        "image = li.Image(np.arange(600, dtype='f4').reshape(20, 30), yx0=li.YX(y=4, x=5), unit=u.nJy)\n"
        "masked = li.MaskedImage(image, mask_schema=schema)\n"
        "masked.mask.set('P37', image.array > 500)\n"
        "masked.mask.set('SATURATED', image.array < 10)\n"
        "masked.variance.array[...] = 3\n"
        "masked.write(sys.argv[1])\n"
    )
    run(lsst_images_python, script, tmp_path / "v.fits")
    read = read_visit_image(tmp_path / "v.fits", IngestMap(visit=1, detector=2))
    image = np.arange(600, dtype=np.float32).reshape(20, 30)
    assert_same_bits(read.image, image)
    assert np.array_equal((read.mask & read.bits("P37")) != 0, image > 500)
    assert np.array_equal((read.mask & read.bits("SAT")) != 0, image < 10)
    assert (read.xy0, read.unit) == ((5, 4), "nJy")


VISIT = """
import sys
import astropy.time, astropy.units as u, astropy.wcs, numpy as np, starlink.Ast
import lsst.images as li
from astro_metadata_translator import ObservationInfo
from lsst.images import cameras, fields, psfs
from lsst.images._transforms import _ast
from lsst.images.cameras import CameraFrameSet

path, unit, scaling = sys.argv[1:]
box, whole = li.Box.factory[4:24, 5:35], li.Box.factory[0:100, 0:100]
frames = _ast.FrameSet(_ast.Frame(2, "Ident=FOCAL_PLANE, Unit(1)=mm, Unit(2)=mm"))
limits = "Bottom(1)=0, Top(1)=100, Bottom(2)=0, Top(2)=100"
for ident, zoom in (("FIELD_ANGLE", 1e-4), (f"DETECTOR_94, {limits}", 100.0)):
    frames._impl.addframe(1, starlink.Ast.ZoomMap(2, zoom), starlink.Ast.Frame(2, f"Ident={ident}"))
detector = cameras.Detector(
    cameras.DetectorAttributes(
        name="R22_S11", id=94, type=cameras.DetectorType.SCIENCE, serial="X1", bbox=whole,
        orientation=cameras.Orientation(focal_plane_x=0, focal_plane_y=0, focal_plane_z=0),
        pixel_size=0.01, physical_type="E2V",
    ),
    [], CameraFrameSet("LSSTCam", frames), visit=2025112200123,
)
wcs = astropy.wcs.WCS(naxis=2)
wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
wcs.wcs.crpix, wcs.wcs.crval = [10.3, 5.1], [53.1, -27.8]
wcs.wcs.cd = [[-5.5e-5, 1.2e-7], [1.1e-7, 5.5e-5]]
projection = li.SkyProjection.from_fits_wcs(
    wcs, li.DetectorFrame(instrument="LSSTCam", visit=2025112200123, detector=94, bbox=whole),
    pixel_bounds=box, x0=5, y0=4,
)
planes = li.get_legacy_visit_image_mask_planes().values()
image = li.Image(np.arange(600, dtype="f4").reshape(20, 30), bbox=box, unit=u.Unit(unit))
visit_image = li.VisitImage(
    image, mask_schema=li.MaskSchema(list(planes)), sky_projection=projection, detector=detector, band="r",
    psf=psfs.GaussianPointSpreadFunction(1.75, box, 21),
    photometric_scaling=fields.ChebyshevField(whole, np.array([[12.5]]), unit=u.Unit(scaling)),
    obs_info=ObservationInfo.makeObservationInfo(
        instrument="LSSTCam", telescope="Simonyi", visit_id=2025112200123, exposure_id=2025112200123,
        physical_filter="r_57", detector_num=94, exposure_time=30.0 * u.s,
        datetime_begin=astropy.time.Time("2025-11-22T03:00:00", scale="tai"),
    ),
)
visit_image.mask.set("SATURATED", image.array < 10)
visit_image.mask.set("COSMIC_RAY", image.array > 595)
visit_image.variance.array[...] = 3
visit_image.write(path)
sky = projection.pixel_to_sky(x=np.array([12.0]), y=np.array([9.0]))
print(float(sky.ra.deg[0]), float(sky.dec.deg[0]))
"""


@pytest.mark.parametrize(
    ("unit", "scaling", "photo_calib"),
    [("electron", "uJy / electron", 12500.0), ("nJy", "nJy / electron", 1.0)],
)
def test_visit_image_with_its_json_tree(tmp_path, lsst_images_python, unit, scaling, photo_calib):
    path = tmp_path / "v.fits"
    sky = run(lsst_images_python, VISIT, path, unit, scaling)
    read = read_visit_image(path)
    image = np.arange(600, dtype=np.float32).reshape(20, 30)
    assert_same_bits(read.image, image)
    assert_same_bits(read.variance, np.full((20, 30), 3, np.float32))
    assert {"BAD", "SAT", "INTRP", "CR", "EDGE", "DETECTED", "SUSPECT"} <= set(read.planes)
    assert np.array_equal((read.mask & read.planes.bits("SAT")) != 0, image < 10)
    assert np.array_equal((read.mask & read.planes.bits("CR")) != 0, image > 595)
    assert (read.visit, read.detector, read.band) == (2025112200123, 94, "r")
    assert (read.exposure_time, read.unit, read.xy0) == (30.0, unit, (5, 4))
    np.testing.assert_allclose(read.photo_calib, photo_calib)
    assert read.psf.sigma == 1.75
    np.testing.assert_allclose(
        np.ravel(read.wcs.all_pix2world([12.0 - 5], [9.0 - 4], 0)), [float(x) for x in sky.split()], atol=1e-9
    )
    header = read_visit_header(path)
    assert (header.visit, header.detector, header.planes) == (read.visit, read.detector, read.planes)
    write_visit_image(read, tmp_path / "ours.fits")
    assert_same_bits(read_visit_image(tmp_path / "ours.fits").image, image)
