"""The PSF: its stars, and how well the model renders them elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from skysub.psf.model import MoffatPsf, PsfStars, fit_psf
from skysub.psf.stars import Moments, Stars, adaptive_moments, choose_stars, cut_stamps

SHAPE = (2000, 2400)
SIZE = 27


def profile(x, y, dx, dy):
    """A core with wings, whose width and shape vary over the detector."""
    u, v = 2 * x / SHAPE[1] - 1, 2 * y / SHAPE[0] - 1
    a2 = np.exp(2.2 + 0.10 * u - 0.06 * v + 0.05 * u * v)
    g1, g2 = 0.06 * u + 0.03 * v * v, -0.05 * v
    r2 = ((1 + g1) * dx**2 + 2 * g2 * dx * dy + (1 - g1) * dy**2) / a2
    return 0.9 * 2 / (np.pi * a2) * (1 + r2) ** -3 + 0.1 * np.exp(-r2 / 4) / (4 * np.pi * a2)


def stamp_at(x, y):
    grid = np.arange(SIZE) - SIZE // 2
    return profile(x, y, (grid + round(x) - x)[None, :], (grid + round(y) - y)[:, None])


def make_stars(n, *, seed=0, noise=30.0, flux=(4.3, 5.8)):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(20, SHAPE[1] - 20, n), rng.uniform(20, SHAPE[0] - 20, n)
    fluxes = 10 ** rng.uniform(*flux, n)
    stamps = np.array(
        [
            f * stamp_at(a, b) + rng.normal(0, 1, (SIZE, SIZE)) * np.sqrt(noise**2 + f * stamp_at(a, b))
            for a, b, f in zip(x, y, fluxes, strict=True)
        ]
    )
    return Stars(
        stamps=stamps,
        good=np.ones(stamps.shape, bool),
        x0=np.round(x).astype(int) - SIZE // 2,
        y0=np.round(y).astype(int) - SIZE // 2,
        moments=adaptive_moments(stamps),
        noise=np.full(n, noise),
    ), fluxes


@pytest.fixture(scope="module")
def psf():
    return fit_psf(make_stars(120)[0], shape=SHAPE)


def test_it_renders_the_psf_where_no_star_was(psf):
    rng = np.random.default_rng(9)
    sizes, shapes, misfits = [], [], []
    for x, y in rng.uniform(100, 1900, (25, 2)):
        true = stamp_at(x, y)
        true /= true.sum()
        model = psf.stamp(x=x, y=y)
        assert model.shape == (SIZE, SIZE)
        m = adaptive_moments(np.array([model, true]))
        sizes.append(m.size[0] / m.size[1] - 1)
        shapes.append(m.ellipticity[0][0] - m.ellipticity[0][1])
        misfits.append(np.abs(model - true).sum())
    assert abs(np.mean(sizes)) < 0.002
    assert np.std(sizes) < 0.005
    assert np.std(shapes) < 0.005
    assert np.mean(misfits) < 0.025


def test_what_it_says_of_its_stars(psf):
    _, flux = make_stars(120)
    used = psf.stars.used
    assert used.sum() > 100
    assert np.median(np.abs(psf.stars.flux / flux - 1)[used]) < 0.02
    assert 0.5 < np.median(psf.stars.chi2[used]) < 3
    delta = psf.stars.moments.size - psf.stars.model_moments.size
    assert abs(np.median(delta[used])) < 0.01


def test_numbers_in_the_middle(psf):
    middle = stamp_at((SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2)
    middle /= middle.sum()
    assert psf.sigma == pytest.approx(adaptive_moments(middle[None]).size[0], rel=0.01)
    assert psf.area == pytest.approx(1 / np.sum(middle**2), rel=0.03)
    assert 2 * psf.sigma < psf.fwhm < 2.4 * psf.sigma


def test_a_few_bad_stars_are_left_out():
    stars, _ = make_stars(60, seed=3)
    stamps = stars.stamps.copy()
    for k in range(6):
        stamps[k, :, 18] += 400
    spoilt = Stars(
        stamps=stamps,
        good=stars.good,
        x0=stars.x0,
        y0=stars.y0,
        moments=adaptive_moments(stamps),
        noise=stars.noise,
    )
    clean, other = fit_psf(stars, shape=SHAPE), fit_psf(spoilt, shape=SHAPE)
    assert other.sigma == pytest.approx(clean.sigma, rel=0.01)


@pytest.mark.parametrize(("n", "order"), [(1, 0), (5, 0), (11, 0), (12, 1), (23, 1), (24, 2), (40, 2)])
def test_few_stars_lower_the_order(n, order):
    """Four stars per term: 12 for a plane, 24 for a polynomial of order 2."""
    psf = fit_psf(make_stars(n, seed=5, flux=(5, 5.5))[0], shape=SHAPE)
    assert psf.order == order
    assert psf.coefficients.shape == (3, (order + 1) * (order + 2) // 2)
    true = stamp_at(500.0, 700.4)
    assert np.abs(psf.stamp(x=500.0, y=700.4) - true / true.sum()).sum() < 0.12


def made_psf(*, log_radius2=2.0, g1=0.0, g2=0.0, beta=3.0, size=41, residual=None):
    """A PSF of known parameters, the same all over the detector."""
    nothing = np.zeros(0)
    moments = Moments(nothing, nothing, nothing, nothing, nothing)
    return MoffatPsf(
        shape=SHAPE,
        order=0,
        coefficients=np.array([[log_radius2], [g1], [g2]]),
        beta=beta,
        residual=np.zeros((size, size)) if residual is None else residual,
        stars=PsfStars(nothing, nothing, nothing, nothing.astype(bool), nothing, moments, moments),
    )


@pytest.mark.parametrize(("dx", "dy"), [(0.4, 0.0), (-0.3, 0.0), (0.0, 0.4), (0.0, -0.45), (0.3, -0.2)])
def test_profile_and_residual_move_with_the_place(dx, dy):
    grid = np.arange(41.0)
    # a bump right of the centre and a smaller one below
    bumps = [(24, 20, 0.05), (20, 14, 0.02)]
    residual = sum(
        f * np.exp(-((grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2) / 4.5) for x, y, f in bumps
    )
    with_it, without = made_psf(residual=residual), made_psf()

    def added(x, y):
        ours = with_it.stamp(x=x, y=y)
        # of sum 1, and so is the profile alone
        profile = without.stamp(x=x, y=y)
        return ours * (1 + residual.sum()) - profile

    moved = added(500 + dx, 700 + dy)
    for x, y, f in bumps:
        there = f * np.exp(-((grid[None, :] - x - dx) ** 2 + (grid[:, None] - y - dy) ** 2) / 4.5)
        near = there > 0.5 * f
        np.testing.assert_allclose(moved[near], there[near], atol=0.03 * f)
    m = adaptive_moments(without.stamp(x=500 + dx, y=700 + dy)[None])
    np.testing.assert_allclose([m.x[0], m.y[0]], [20 + dx, 20 + dy], atol=0.02)


@pytest.mark.parametrize(("g1", "g2"), [(0.0, 0.0), (0.6, 0.0), (-0.6, 0.0), (0.0, 0.7), (0.4, -0.5)])
def test_full_width_is_that_of_a_circle_as_large_as_half_of_the_maximum(g1, g2):
    psf = made_psf(log_radius2=np.log(150.0), g1=g1, g2=g2, beta=2.5, size=161)
    stamp = psf.stamp(x=100.0, y=100.0)
    covered = np.count_nonzero(stamp > stamp.max() / 2)
    assert psf.fwhm == pytest.approx(2 * np.sqrt(covered / np.pi), rel=0.02)


def test_elements_of_the_shape_stretch_along_their_axes():
    # Q = [[1 + g1, g2], [g2, 1 - g1]] / a^2: a positive g1 narrows along x, a positive g2 along x = y
    m = made_psf(g1=0.3).moments()
    assert m.xx[0] < 0.8 * m.yy[0]
    assert abs(m.xy[0]) < 1e-3
    m = made_psf(g2=0.3).moments()
    assert m.xy[0] < -0.1
    assert m.xx[0] == pytest.approx(m.yy[0])


def test_a_fit_finds_the_exponent_and_the_shape_it_was_made_with():
    rng = np.random.default_rng(4)
    truth = made_psf(log_radius2=2.3, g1=0.2, g2=-0.15, beta=3.5, size=SIZE)
    x, y = rng.uniform(50, 1900, 40), rng.uniform(50, 1900, 40)
    flux = 10 ** rng.uniform(5, 6, 40)
    stamps = np.array([f * truth.stamp(x=a, y=b) for a, b, f in zip(x, y, flux, strict=True)])
    stamps += rng.normal(0, 10, stamps.shape)
    stars = Stars(
        stamps=stamps,
        good=np.ones(stamps.shape, bool),
        x0=np.round(x).astype(int) - SIZE // 2,
        y0=np.round(y).astype(int) - SIZE // 2,
        moments=adaptive_moments(stamps),
        noise=np.full(40, 10.0),
    )
    found = fit_psf(stars, shape=SHAPE, order=1)
    assert found.beta == 3.5
    np.testing.assert_allclose(found.coefficients[:, 0], [2.3, 0.2, -0.15], atol=0.01)
    np.testing.assert_allclose(found.coefficients[:, 1:], 0, atol=0.01)
    np.testing.assert_allclose(found.stars.x, x, atol=0.02)
    np.testing.assert_allclose(found.stars.y, y, atol=0.02)
    np.testing.assert_allclose(found.stars.flux, flux, rtol=0.01)
    assert np.median(found.stars.chi2) == pytest.approx(1, abs=0.1)


def test_residuals_are_averaged_about_the_centres_of_their_stars():
    """Moved by a fraction of a pixel the wrong way, a narrow bump would be blurred and lose its height."""
    rng = np.random.default_rng(6)
    grid = np.arange(float(SIZE)) - SIZE // 2
    bump = 0.01 * np.exp(-((grid[None, :] - 5) ** 2 + (grid[:, None] + 4) ** 2) / 1.5)
    truth = made_psf(size=SIZE, residual=bump)
    x, y = rng.uniform(50, 1900, 60), rng.uniform(50, 1900, 60)
    stamps = np.array([1e6 * truth.stamp(x=a, y=b) for a, b in zip(x, y, strict=True)])
    stars = Stars(
        stamps=stamps + rng.normal(0, 5, stamps.shape),
        good=np.ones(stamps.shape, bool),
        x0=np.round(x).astype(int) - SIZE // 2,
        y0=np.round(y).astype(int) - SIZE // 2,
        moments=adaptive_moments(stamps),
        noise=np.full(60, 5.0),
    )
    found = fit_psf(stars, shape=SHAPE, order=0)
    peak = SIZE // 2 - 4, SIZE // 2 + 5
    assert found.residual[peak] == pytest.approx(0.01 / (1 + bump.sum()), rel=0.06)
    assert np.abs(found.stamp(x=700.4, y=300.3) - truth.stamp(x=700.4, y=300.3)).sum() < 0.01


def test_what_the_profile_lacks_is_in_the_residual(psf):
    bare = replace(psf, residual=np.zeros_like(psf.residual))
    misfits = {name: [] for name in ("whole", "bare")}
    for x, y in np.random.default_rng(9).uniform(100, 1900, (20, 2)):
        true = stamp_at(x, y)
        for name, each in (("whole", psf), ("bare", bare)):
            misfits[name].append(np.abs(each.stamp(x=x, y=y) - true / true.sum()).sum())
    assert np.mean(misfits["whole"]) < 0.7 * np.mean(misfits["bare"])


def test_unknown_pixels_are_not_fit():
    stars, _ = make_stars(40, seed=6, flux=(5, 5.8))
    good, stamps = stars.good.copy(), stars.stamps.copy()
    good[:, :, 5] = False
    stamps[:, :, 5] = 0
    holed = Stars(
        stamps=stamps, good=good, x0=stars.x0, y0=stars.y0, moments=stars.moments, noise=stars.noise
    )
    assert fit_psf(holed, shape=SHAPE).sigma == pytest.approx(fit_psf(stars, shape=SHAPE).sigma, rel=0.01)


def test_moments_of_a_gaussian():
    yy, xx = np.mgrid[:41, :41].astype(float)
    d = np.stack([xx - 20.3, yy - 19.6])
    covariance = np.array([[6.0, 1.5], [1.5, 4.0]])
    gaussian = np.exp(-0.5 * np.einsum("iyx,ij,jyx->yx", d, np.linalg.inv(covariance), d))
    m = adaptive_moments(np.array([gaussian, np.zeros((41, 41)), -gaussian]))
    np.testing.assert_allclose([m.x[0], m.y[0]], [20.3, 19.6], atol=0.01)
    np.testing.assert_allclose([m.xx[0], m.xy[0], m.yy[0]], [6, 1.5, 4], atol=0.02)
    assert m.size[0] == pytest.approx((6 * 4 - 1.5**2) ** 0.25, rel=0.01)
    assert np.isnan(m.size[1:]).all()


def test_stars_are_told_from_galaxies_by_size():
    stars, flux = make_stars(50, seed=7, flux=(4.5, 5.5))
    yy, xx = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    rng = np.random.default_rng(8)
    galaxies = np.array(
        [
            3e4 * np.exp(-np.hypot(xx, yy * q) / h) / (2 * np.pi * h * h)
            for q, h in zip(rng.uniform(1, 2, 60), rng.uniform(2.5, 5, 60), strict=True)
        ]
    )
    stamps = np.concatenate([stars.stamps, galaxies + rng.normal(0, 30, galaxies.shape)])
    both = Stars(
        stamps=stamps,
        good=np.ones(stamps.shape, bool),
        x0=np.zeros(110, int),
        y0=np.zeros(110, int),
        moments=adaptive_moments(stamps),
        noise=np.full(110, 30.0),
    )
    chosen = choose_stars(both, np.concatenate([flux, np.full(60, 3e4)]))
    assert chosen[:50].mean() > 0.8
    assert chosen[50:].mean() < 0.05


def test_stamps_at_the_edge_are_left_out():
    image = np.zeros((60, 80), np.float32)
    image[30, 40] = np.nan
    stars, inside = cut_stamps(
        image,
        np.zeros(image.shape, bool),
        np.array([40.0, 3.0, 79.0]),
        np.array([30.0, 30.0, 5.0]),
        np.ones(3),
        size=11,
    )
    np.testing.assert_array_equal(inside, [True, False, False])
    assert not stars.good[0, 5, 5]
    assert stars.stamps[0, 5, 5] == 0
