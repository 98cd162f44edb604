import pickle
import re

import numpy as np
import pytest

from skysub.errors import InvalidImageError, MaskPlaneError
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES, MaskPlanes


def visit_image(**changes):
    fields = {
        "image": np.arange(12, dtype=np.float32).reshape(3, 4),
        "mask": np.zeros((3, 4), np.int32),
        "planes": AFW_PLANES,
        "variance": np.full((3, 4), 2, np.float32),
        "visit": 7,
        "detector": 3,
    }
    return VisitImage(**(fields | changes))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("image", np.zeros(4, np.float32)),
        ("image", np.zeros((3, 4))),
        ("image", np.zeros((3, 4), ">f4")),
        ("mask", np.zeros((4, 3), np.int32)),
        ("mask", np.zeros((3, 4), bool)),
        ("variance", np.zeros((3, 5), np.float32)),
    ],
)
def test_arrays_that_disagree_are_refused_naming_the_detector(field, wrong):
    with pytest.raises(InvalidImageError, match="visit 7 detector 3"):
        visit_image(**{field: wrong})


def test_missing_planes_are_passed_over():
    assert visit_image().bits("BAD", "BLEED") == AFW_PLANES.bits("BAD")


@pytest.mark.parametrize(
    ("name", "meant"), [("DETCTED", "DETECTED"), ("bad", "BAD"), ("SATURATED", "SAT"), ("XYZ", None)]
)
def test_names_that_no_layout_has_are_refused(name, meant):
    given = visit_image()
    hint = f"; did you mean {meant}?" if meant else ""
    message = re.escape(f"no file has a mask plane {name}{hint}; the planes here are: BAD, SAT")
    with pytest.raises(MaskPlaneError, match=message):
        given.bits("BAD", name)
    with pytest.raises(MaskPlaneError, match=message):
        given.to_ccddata(ignore=(name,))


def test_planes_of_ones_own_are_known():
    own = visit_image(planes=MaskPlanes({"BDA": 0}))
    assert own.bits("BDA", "BAD") == 1
    with pytest.raises(MaskPlaneError, match="BDB; did you mean BDA"):
        own.bits("BDB")


def test_replace_shares_what_does_not_change():
    before = visit_image()
    after = before.replace(unit="nJy")
    assert after.unit == "nJy"
    assert after.image is before.image


def test_ccddata_does_not_mask_sources():
    mask = np.zeros((3, 4), np.int32)
    mask[0, 0] = AFW_PLANES.bits("DETECTED")
    mask[1, 1] = AFW_PLANES.bits("DETECTED", "SAT")
    given = visit_image(mask=mask)
    ccd = given.to_ccddata()
    assert np.argwhere(ccd.mask).tolist() == [[1, 1]]
    assert np.shares_memory(ccd.data, given.image)
    assert np.shares_memory(ccd.uncertainty.array, given.variance)
    assert ccd.unit == "electron"
    assert ccd.meta["VISIT"] == 7
    assert np.argwhere(given.to_ccddata(ignore=()).mask).tolist() == [[0, 0], [1, 1]]
    assert not given.to_ccddata(ignore=("DETECTED", "SAT")).mask.any()


def test_visit_images_travel():
    copy = pickle.loads(pickle.dumps(visit_image()))
    assert copy.image.tolist() == visit_image().image.tolist()
    assert copy.planes == AFW_PLANES


def test_it_is_shown_in_a_line():
    given = visit_image(band="r", path="a.fits", notes=("one",))
    assert repr(given) == (
        "VisitImage(visit=7, detector=3, band='r', shape=(3, 4), unit='electron', planes="
        f"{' '.join(AFW_PLANES.names)}, known=variance, path='a.fits', notes=1)"
    )
