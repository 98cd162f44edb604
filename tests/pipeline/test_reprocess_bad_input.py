"""Bad input of `reprocess_visit_image`: it ends in the best that is left, or in a named failure."""

import dataclasses

import numpy as np
import pytest

import skysub
from skysub.errors import CalibrationError, InvalidImageError, InvalidPsfError
from skysub.testing import make_visit_image
from skysub.visit.calibrations import Calibrations
from skysub.visit.photometric import ChebyshevField, PhotometricCalibration

SHAPE = (220, 260)
CONFIG = skysub.ReprocessVisitImageConfig()


class PsfHere:
    """A Gaussian of FWHM 4 pixels that is NaN from a column on."""

    def __init__(self, until):
        self.until = until

    def stamps(self, x, y):
        i = np.arange(25) - 12
        dy, dx = (i[None, :] - (v - np.round(v))[:, None] for v in (y, x))
        p = np.exp(-0.5 * (dy[:, :, None] ** 2 + dx[:, None, :] ** 2) / 1.7**2)
        p /= p.sum((1, 2), keepdims=True)
        p[np.asarray(x) > self.until] = np.nan
        return p


@pytest.fixture(scope="module")
def detector():
    """An image, its background, and calibrations."""
    visit_image = make_visit_image(SHAPE, visit=4, detector=9, sources=25, detected=False, seed=6)
    background = skysub.fit_background(
        visit_image.image, (visit_image.mask, visit_image.bits("BAD", "SAT", "NO_DATA"))
    )
    box = (0, 0, SHAPE[1] - 1, SHAPE[0] - 1)
    one = ChebyshevField(coefficients=np.array([[1.0]]), box=box)
    calibrations = Calibrations(
        wcs=visit_image.wcs,
        photo_calib=PhotometricCalibration(mean=2.0, error=0.01),
        psf=PsfHere(np.inf),
        aperture_corrections={"psfFlux": one},
    )
    return visit_image, background, calibrations


def measure(detector, *, calibrations=None, **changes):
    visit_image, background, good = detector
    return skysub.reprocess_visit_image(
        visit_image.replace(**changes), background, calibrations or good, CONFIG
    )


def primary(result):
    return int(np.count_nonzero(result.source.columns["detect_isPrimary"]))


@pytest.fixture(scope="module")
def whole(detector):
    result = measure(detector)
    assert primary(result) > 15
    return result


def test_a_psf_that_is_nowhere_is_a_named_failure(detector):
    lost = dataclasses.replace(detector[2], psf=PsfHere(-np.inf))
    with pytest.raises((InvalidPsfError, CalibrationError), match="visit 4 detector 9"):
        measure(detector, calibrations=lost)


def test_a_psf_that_is_undefined_in_a_part_serves_there_as_well(detector, whole):
    part = dataclasses.replace(detector[2], psf=PsfHere(180))
    result = measure(detector, calibrations=part)
    c = result.source.columns
    assert primary(result) == primary(whole)
    rows = c["detect_isPrimary"]
    far, near = rows & (c["x"] > 245), rows & (c["x"] < 100)
    assert c["invalidPsfFlag"][far].all()
    assert not c["invalidPsfFlag"][near].any()


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan])
def test_a_variance_that_is_none_in_places(detector, whole, value):
    variance = detector[0].variance.copy()
    variance[:, 100:140] = value
    result = measure(detector, variance=variance)
    assert "variance_repaired" in result.flags
    assert abs(primary(result) - primary(whole)) <= 2


def test_no_data_at_all_is_an_empty_table_that_says_so(detector):
    mask = np.full(SHAPE, detector[0].bits("NO_DATA"), np.int32)
    result = measure(detector, mask=mask)
    assert primary(result) == 0
    assert "noise_unknown" in result.flags


def test_one_saturated_blend_leaves_the_sources_beside_it(detector):
    mask = detector[0].mask.copy()
    mask[40:180, 60:200] |= detector[0].bits("SAT")
    image = detector[0].image.copy()
    image[40:180, 60:200] = 1e5
    result = measure(detector, mask=mask, image=image)
    c = result.source.columns
    rows = c["detect_isPrimary"]
    inside = rows & (c["x"] > 65) & (c["x"] < 195) & (c["y"] > 45) & (c["y"] < 175)
    assert inside.sum() == 1
    assert c["pixelFlags_saturatedCenter"][inside].all()
    assert (rows & (c["x"] > 215)).sum() >= 1


def test_bytes_the_other_way_round_are_a_named_failure(detector):
    # readers turn them; the measurement itself takes either order
    with pytest.raises(InvalidImageError, match=r"visit 4 detector 9.*byte order"):
        measure(detector, image=detector[0].image.astype(">f4"))


def test_a_calibration_with_zeros_or_of_another_size_is_a_named_failure(detector):
    for coefficients, box in (
        ([[1.0, 1.2]], (0, 0, SHAPE[1] - 1, SHAPE[0] - 1)),
        ([[1.0]], (0, 0, 99, 99)),
    ):
        field = ChebyshevField(coefficients=np.array(coefficients), box=box)
        with pytest.raises(CalibrationError):
            measure(
                detector,
                calibrations=dataclasses.replace(
                    detector[2], photo_calib=PhotometricCalibration.of_field(field, error=0.0)
                ),
            )
