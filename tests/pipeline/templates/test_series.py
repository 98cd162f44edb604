"""Constants and shares of the sky, from many visits' values."""

import numpy as np
import pytest

from skysub.pipeline.templates.series import regressed


def _values(constant, share, levels, *, error, scatter=0.0, seed=0):
    rng = np.random.default_rng(seed)
    true = np.asarray(constant) + np.outer(levels, share)
    return true + rng.normal(0, np.hypot(error, scatter), true.shape), np.full(true.shape, error)


def test_constant_and_share_are_told_apart_where_levels_differ():
    levels = np.linspace(500, 3000, 12)
    constant, share = np.array([2.0, -1.0, 0.0, 3.0]), np.array([0.0, 2e-3, -1e-3, 1e-3])
    found = regressed(*_values(constant, share, levels, error=0.02), levels)
    np.testing.assert_allclose(found.terms[:, 0], constant, atol=0.06)
    np.testing.assert_allclose(found.terms[:, 1], share, atol=4e-5)
    assert found.visits.tolist() == [12] * 4
    # what is claimed of the terms holds: mean square of pulls near 1
    pulls = (found.terms[:, 0] - constant) / np.sqrt(found.covariance[:, 0, 0])
    assert np.sqrt(np.mean(pulls**2)) < 2


def test_noise_alone_gives_next_to_nothing():
    levels = np.full(10, 900.0)
    values, errors = _values(np.zeros(30), np.zeros(30), levels, error=0.5)
    found = regressed(values, errors, levels)
    expected = found.terms @ np.array([1, 900.0])
    # plain means of ten visits would scatter by 0.5 / sqrt(10) = 0.16
    assert np.std(np.mean(values, axis=0)) > 0.12
    assert np.std(expected) < 0.06


def test_scatter_of_visits_is_told():
    levels = np.full(20, 900.0)
    constant = np.random.default_rng(5).normal(0, 2, 40)
    found = regressed(*_values(constant, np.zeros(40), levels, error=0.05, scatter=0.4), levels)
    assert np.mean(found.deviation) == pytest.approx(0.4, rel=0.15)


def test_one_wild_visit_and_missing_ones_do_no_harm():
    levels = np.full(10, 900.0)
    values, errors = _values([1.0, -2.0, 0.5], np.zeros(3), levels, error=0.05)
    values[3, 1] += 40.0
    values[7, 2] = np.nan
    values[:, 0] = np.where(np.arange(10) < 8, np.nan, values[:, 0])
    found = regressed(values, errors, levels)
    expected = found.terms @ np.array([1, 900.0])
    np.testing.assert_allclose(expected[1:], [-2.0, 0.5], atol=0.1)
    assert found.visits.tolist() == [2, 10, 9]
    assert expected[0] == pytest.approx(1.0, abs=0.15)


def test_an_unseen_series_is_as_wide_as_the_population():
    levels = np.full(10, 900.0)
    values, errors = _values([3.0, -3.0, 2.0, 0.0], np.zeros(4), levels, error=0.05)
    values[:, 3] = np.nan
    found = regressed(values, errors, levels)
    x = np.array([1, 900.0])
    assert found.visits[3] == 0
    assert found.terms[3] @ x == 0
    assert np.sqrt(x @ found.covariance[3] @ x) > 1.0
