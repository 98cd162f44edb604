"""Photometric calibrations as fields: values by hand, and fields that no detector has."""

import numpy as np
import pytest

from skysub.errors import CalibrationError
from skysub.visit.photometric import ChebyshevField, PhotometricCalibration


def test_values_by_hand():
    # box of 4 x 2 pixels whose first one is (10, 20): x' = (2 x - 23) / 4, y' = (2 y - 41) / 2
    field = ChebyshevField(coefficients=np.array([[5.0, 1.0, 0.5], [2.0, 0.0, 0.25]]), box=(10, 20, 13, 21))
    x, y = 12.0, 21.0
    u, v = 0.25, 0.5
    expected = 5 + u + 0.5 * (2 * u**2 - 1) + 2 * v + 0.25 * v * (2 * u**2 - 1)
    assert field.at(np.array([x]), np.array([y]))[0] == pytest.approx(expected, rel=1e-14)
    window = field.over(y=slice(20, 22), x=slice(11, 14))
    assert window.shape == (2, 3)
    assert window[1, 1] == field.at(np.array([x]), np.array([y]))[0]


def test_a_window_has_the_bits_of_the_whole():
    rng = np.random.default_rng(3)
    field = ChebyshevField(coefficients=rng.normal(size=(4, 6)), box=(0, 0, 49, 29))
    whole = field.over(y=slice(0, 30), x=slice(0, 50))
    np.testing.assert_array_equal(whole[7:20, 11:33], field.over(y=slice(7, 20), x=slice(11, 33)))
    y, x = np.mgrid[7:20, 11:33]
    np.testing.assert_array_equal(whole[7:20, 11:33].ravel(), field.at(x.ravel(), y.ravel()))


def test_the_mean_is_that_of_the_function():
    rng = np.random.default_rng(4)
    field = ChebyshevField(coefficients=rng.normal(size=(5, 4)), box=(0, 0, 9, 9))
    t, w = np.polynomial.legendre.leggauss(12)
    values = np.polynomial.chebyshev.chebgrid2d(t, t, field.coefficients)
    assert field.mean == pytest.approx(np.einsum("i,j,ij", w, w, values) / 4, rel=1e-12)


def test_beyond_its_box_a_field_has_the_value_at_the_edge():
    field = ChebyshevField(coefficients=np.array([[1.0, 0.5]]), box=(0, 0, 9, 9))
    assert field.at(np.array([40.0]), np.array([3.0]))[0] == 1.5


def test_terms_in_afws_order_become_a_matrix():
    field = ChebyshevField.of_terms(np.array([1.0, 2, 3, 4, 5, 6]), 2, shape=(30, 40))
    # 1; x, y; x2, xy, y2
    np.testing.assert_array_equal(field.coefficients, [[1, 2, 4], [3, 5, 0], [6, 0, 0]])
    assert field.box == (0, 0, 39, 29)


@pytest.mark.parametrize(
    ("coefficients", "box", "words"),
    [
        (np.ones(3), (0, 0, 9, 9), "matrix"),
        (np.array([[np.nan]]), (0, 0, 9, 9), "not all finite"),
        (np.ones((1, 1)), (5, 0, 4, 9), "empty"),
    ],
)
def test_what_is_no_field(coefficients, box, words):
    with pytest.raises(CalibrationError, match=words):
        ChebyshevField(coefficients=coefficients, box=box)


@pytest.mark.parametrize("number", [0.0, -1.0, np.nan, np.inf, 1e-30])
def test_what_is_no_calibration(number):
    with pytest.raises(CalibrationError, match="positive number"):
        PhotometricCalibration(number)


def test_a_field_with_a_zero_is_refused_with_its_place():
    # 1 + x' falls to zero at the left edge
    with pytest.raises(CalibrationError, match=r"nJy per count at x = 0"):
        PhotometricCalibration.of_field(
            ChebyshevField(coefficients=np.array([[1.0, 1.2]]), box=(0, 0, 99, 79))
        )
    with pytest.raises(CalibrationError, match="mean -1"):
        PhotometricCalibration.of_field(ChebyshevField(coefficients=np.array([[-1.0]]), box=(0, 0, 99, 79)))


def test_a_field_of_the_wrong_size_is_refused():
    calibration = PhotometricCalibration.of_field(
        ChebyshevField(coefficients=np.array([[2.0, 0.1]]), box=(0, 0, 99, 79)), error=0.5
    )
    calibration.check_covers(shape=(80, 100), xy0=(0, 0))
    calibration.check_covers(shape=(10, 10), xy0=(90, 70))
    for shape, xy0 in [((81, 100), (0, 0)), ((80, 100), (1, 0)), ((10, 10), (90, 71)), ((10, 10), (-1, 0))]:
        with pytest.raises(CalibrationError, match="wrong size"):
            calibration.check_covers(shape=shape, xy0=xy0)
    assert calibration.error_at(np.array([49.5]), np.array([0.0]))[0] == pytest.approx(0.5)
