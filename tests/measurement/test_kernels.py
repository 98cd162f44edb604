import math

import numpy as np
import pytest

from skysub.measurement import child_kernels, detection_kernels, pair_kernels, photometry_kernels, psf_kernels
from skysub.measurement.local_psf import PsfTable
from skysub.measurement.overlap import Autocorrelation, Pairs
from tests.measurement.scenes import Gaussian


def discs(image, y, x, radii):
    running = np.empty((image.shape[0], image.shape[1] + 1))
    photometry_kernels.running_sums(image.astype(np.float32), 0, running)
    out = np.zeros((1, len(radii)))
    photometry_kernels.aperture_sums(running, 0, np.array([y]), np.array([x]), np.array(radii), out)
    return out[0]


def test_the_disc_of_a_flat_image_is_its_area():
    radii = [0.3, 1.0, 3.0, 4.5, 12.0, 17.0, 50.0]
    sums = discs(np.full((120, 130), 2.0), 58.37, 66.81, radii)
    np.testing.assert_allclose(sums, [2 * math.pi * r * r for r in radii], rtol=2e-3)
    np.testing.assert_allclose(sums[2:], [2 * math.pi * r * r for r in radii[2:]], rtol=1e-4)


def test_a_pixel_counts_by_the_part_of_it_inside_the_circle():
    image = np.zeros((20, 20))
    image[10, 12] = 100.0
    # a circle of radius 2 about (10, 10) cuts the pixel from x = 1.5 to 2.5, y = -0.5 to 0.5 at
    # x = sqrt(4 - y^2); the area inside is the integral of sqrt(4 - y^2) - 1.5
    inside = 2 * (0.25 * math.sqrt(4 - 0.25) + 2 * math.asin(0.25)) - 1.5
    assert discs(image, 10.0, 10.0, [2.0])[0] == pytest.approx(100 * inside, rel=1e-6)
    # all of it, none of it
    np.testing.assert_allclose(discs(image, 10.0, 10.0, [2.6, 1.49]), [100.0, 0.0], atol=1e-9)


def test_moments_of_an_elliptical_gaussian_are_its_covariance():
    psf = Gaussian(xx=6.0, yy=3.0, xy=1.2)
    y, x = np.mgrid[:41, :41]
    child = 1000 * psf.at(y - 20.3, x - 19.6)
    out = np.empty(8)
    photometry_kernels.shape_of_child(child, 20.0, 20.0, 4.0, 60, 2.0, out)
    np.testing.assert_allclose(out[:5], [20.3, 19.6, 6.0, 1.2, 3.0], atol=2e-3)
    assert out[5] == pytest.approx(1000, rel=1e-3)
    # of a Gaussian the flux of a fit has the variance 4 pi sqrt(det)
    assert out[6] == pytest.approx(4 * math.pi * math.sqrt(6 * 3 - 1.2**2), rel=1e-3)
    assert out[7] == 1


def test_moments_of_nothing_do_not_converge():
    out = np.empty(8)
    photometry_kernels.shape_of_child(np.zeros((21, 21)), 10.0, 10.0, 4.0, 60, 2.0, out)
    assert out[7] == 0
    assert np.isnan(out[5])


def test_a_tabulated_psf_is_the_model_between_its_phases():
    psf = Gaussian(xx=3.0, yy=5.0, xy=-0.8)
    stamps = PsfTable.of(psf, (200, 300)).at(77.0, 120.0)
    dy, dx = np.array([0.13, -0.47, 0.5]), np.array([-0.31, 0.08, -0.5])
    out = np.empty((3, *stamps.shape[2:]), np.float32)
    psf_kernels.render_many(stamps, dy, dx, out)
    expected = psf.stamps(x=100 + dx, y=100 + dy)
    assert np.abs(out[:, :, :25] - expected).max() < 2e-3 * expected.max()


def test_overlap_of_two_gaussians_is_a_gaussian_of_twice_the_variance():
    table = Autocorrelation.of(PsfTable.of(Gaussian(xx=4.0, yy=4.0), (60, 60)))
    assert table.square == pytest.approx(1 / (16 * math.pi), rel=1e-3)
    half = table.table.shape[1] // 2
    # 3 pixels along x are 12 quarters
    assert table.table[0, half, half + 12] == pytest.approx(math.exp(-9 / 16) / (16 * math.pi), rel=1e-3)
    slope = -3 / 8 * table.table[0, half, half + 12]
    assert table.table[2, half, half + 12] == pytest.approx(slope, rel=0.01)
    # exp(-r^2 / 16) falls to 1 % at 8.6 pixels
    assert 8 < table.reach < 9.5


def test_pairs_are_those_within_reach_once_each():
    random = np.random.default_rng(5)
    y, x = random.uniform(0, (90, 150), (300, 2)).T.copy()
    pairs = Pairs.within(y, x, 7.0, (90, 150))
    found = {(min(a, b), max(a, b)) for a, b in zip(pairs.first, pairs.second, strict=True)}
    near = np.hypot(y[:, None] - y, x[:, None] - x) < 7
    expected = {(a, b) for a, b in zip(*np.nonzero(near), strict=True) if a < b}
    assert found == expected
    assert len(pairs.first) == len(expected)


def test_two_overlapping_stars_have_the_errors_of_the_inverse_of_their_normal_equations():
    # positions known: fluxes alone, of overlap rho, have the variance 1 / (1 - rho^2) of one star alone
    auto = Autocorrelation.of(PsfTable.of(Gaussian(), (60, 60)))
    y, x = np.array([30.0, 30.0]), np.array([30.0, 34.0])
    rho = math.exp(-16 / 16)
    diagonal = np.zeros((2, 3, 3))
    diagonal[:, 0, 0] = auto.square
    diagonal[:, 1, 1] = diagonal[:, 2, 2] = 1e12
    starts, partners = Pairs.within(y, x, auto.reach, (60, 60)).neighbours(2)
    out = np.empty((2, 4))
    pair_kernels.errors_of_stars(
        auto.table, 4.0, np.ones(2), y, x, np.full(2, 100.0), diagonal, np.full(2, 9.0), starts, partners, out
    )
    np.testing.assert_allclose(out[:, 0], 9 * 16 * math.pi / (1 - rho**2), rtol=2e-3)


def test_conjugate_gradients_solve_for_two_stars():
    auto = Autocorrelation.of(PsfTable.of(Gaussian(), (60, 60)))
    y, x = np.array([30.0, 31.0]), np.array([30.0, 33.0])
    rho = math.exp(-10 / 16)
    square = auto.square
    diagonal = np.tile(np.diag([square, 1.0, 1.0]), (2, 1, 1))
    pairs = Pairs.within(y, x, auto.reach, (60, 60))
    # what stars of 700 and 200 leave in the sums of profile times light
    right = np.zeros((2, 3))
    right[:, 0] = square * np.array([700 + rho * 200, 200 + rho * 700])
    out = np.empty((2, 3))
    fixed = np.zeros(2, bool)
    pair_kernels.conjugate_gradients(
        auto.table, 4.0, np.ones(2), y, x, fixed, diagonal, pairs.first, pairs.second, right, 20, out
    )
    np.testing.assert_allclose(out[:, 0], [700, 200], rtol=2e-3)
    np.testing.assert_array_equal(out[:, 1:], 0)


def test_peaks_are_maxima_and_of_equal_pixels_the_last():
    values = np.zeros((9, 11), np.float32)
    values[2, 3] = values[2, 4] = 8.0
    values[7, 0] = 6.0
    values[5, 8], values[5, 9], values[6, 8] = 9.0, 5.0, 7.0
    assert detection_kernels.count_peaks(values, 4.0, 0, 9) == 3
    y, x = np.empty((2, 3))
    detection_kernels.list_peaks(values, 4.0, 0, 9, y, x)
    np.testing.assert_array_equal(np.rint(np.column_stack([y, x])), [[2, 4], [5, 8], [7, 0]])
    # the vertex of the parabola through 0, 9, 7 and through 0, 9, 5
    assert y[1] == pytest.approx(5 + 0.5 * 7 / 11)
    assert x[1] == pytest.approx(8 + 0.5 * 5 / 13)


def test_the_level_of_a_ring_leaves_out_what_stands_out_and_what_is_not_known():
    random = np.random.default_rng(2)
    light = (3 + random.standard_normal((80, 80))).astype(np.float32)
    light[40, 55] = 1e4
    state = np.zeros((80, 80), np.uint8)
    light[:, 60:] = 1e6
    state[:, 60:] = 1
    out = np.empty((1, 3))
    child_kernels.ring_levels(light, state, np.array([40.0]), np.array([40.0]), 10.0, 25.0, 3.0, 3, out)
    assert out[0, 0] == pytest.approx(3, abs=0.2)
    assert out[0, 1] == pytest.approx(1, abs=0.1)
    # half of the pixels between the circles, less those beyond column 60
    assert 500 < out[0, 2] < 825
