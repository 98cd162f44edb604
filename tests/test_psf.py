"""The PSF: its stars, and how well the model renders them elsewhere."""

import numpy as np
import pytest

from skysub.psf.model import fit_psf
from skysub.psf.stars import Stars, adaptive_moments, choose_stars, cut_stamps

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
        assert model.sum() == pytest.approx(1)
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


@pytest.mark.parametrize(("n", "order"), [(1, 0), (5, 0), (13, 1), (30, 2)])
def test_few_stars_lower_the_order(n, order):
    psf = fit_psf(make_stars(n, seed=5, flux=(5, 5.5))[0], shape=SHAPE)
    assert psf.order <= order
    assert psf.stamp(x=500.0, y=700.4).sum() == pytest.approx(1)


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
