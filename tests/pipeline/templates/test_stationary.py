"""The posterior of a stationary field: against hand-made answers, and in holes."""

import numpy as np
import pytest

from skysub.pipeline.templates.stationary import Prior, posterior, prior_of

SHAPE = (40, 50)


def _wave(shape=SHAPE):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 3 * np.sin(2 * np.pi * (0.8 * x + 0.4 * y) / 5.3 + 1)


def test_a_white_prior_shrinks_every_cell_alike():
    # variance 4 of the field, 1 of the noise: each cell keeps 4 / 5, whatever its neighbours say
    prior = Prior(np.full((60, 41), 4.0), (60, 80))
    values = np.random.default_rng(1).normal(0, 2, SHAPE)
    seen = np.ones(SHAPE, bool)
    seen[3, 7] = False
    found = posterior(values, np.ones(SHAPE), seen, prior)
    np.testing.assert_allclose(found[seen], 0.8 * values[seen], rtol=1e-4, atol=1e-6)
    assert found[3, 7] == pytest.approx(0, abs=1e-9)
    assert prior.variance == pytest.approx(4.0)
    assert prior.left(1.0) == pytest.approx(0.8)


def test_a_pattern_comes_out_of_noise_and_fills_holes():
    rng = np.random.default_rng(2)
    true, seen = _wave(), np.ones(SHAPE, bool)
    seen[10:14, 20:23] = False
    halves = [true + rng.normal(0, 2, SHAPE) for _ in range(2)]
    prior = prior_of(*halves, seen, 4.0)
    # 4.5 is the mean square of a wave of amplitude 3
    assert prior.variance == pytest.approx(4.5, rel=0.25)
    found = posterior(np.mean(halves, axis=0), np.full(SHAPE, 2.0), seen, prior)
    assert np.std(found - true) < 0.55
    assert np.std((found - true)[~seen]) < 1.0
    unseen = np.full(SHAPE, 2.0)
    values = np.mean(halves, axis=0)
    values[~seen] = 1e6
    np.testing.assert_array_equal(posterior(values, unseen, seen, prior), found)


def test_noise_has_no_pattern():
    rng = np.random.default_rng(3)
    halves = [rng.normal(0, 2, SHAPE) for _ in range(2)]
    seen = np.ones(SHAPE, bool)
    prior = prior_of(*halves, seen, 4.0)
    found = posterior(np.mean(halves, axis=0), np.full(SHAPE, 2.0), seen, prior)
    assert np.std(found) < 0.3
    nothing = Prior(np.zeros((60, 41)), (60, 80))
    assert not posterior(halves[0], np.ones(SHAPE), seen, nothing).any()
