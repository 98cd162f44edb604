"""Sky frames: found with their strengths, left out where there are none."""

import numpy as np
import pytest

from skysub.background.layered import interpolated
from skysub.pipeline.templates.frames import nodes_of, sky_frames

SHAPE = (40, 44)
STRENGTHS = np.array([0.7, 1.3, 1.0, 0.9, 1.2, 0.8, 1.1, 1.0])


def _pattern(detector, period=6.0):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    angle = 0.7 * detector
    return np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + detector)


def _cells(amplitude, *, noise=1.0, second=None, detectors=3, seed=0):
    rng = np.random.default_rng(seed)
    values = {
        n: [
            (
                amplitude * s * _pattern(n)
                + (0 if second is None else second[v] * _pattern(n + 7, 11.0))
                + rng.normal(0, noise, SHAPE)
            ).astype(np.float32)
            for v, s in enumerate(STRENGTHS)
        ]
        for n in range(detectors)
    }
    return values, {n: [np.full(SHAPE, noise, np.float32)] * len(STRENGTHS) for n in values}


@pytest.fixture(scope="module")
def found():
    values, errors = _cells(1.5)
    for v in range(8):
        # a star's light that nobody masked, and a hole that all visits have
        values[1][v][5:9, 5:9] += 30.0 if v == 2 else 0.0
        values[2][v][20:24, 20:24] = np.nan
    return sky_frames(values, errors, most=2)


def test_a_pattern_is_found_with_its_strengths(found):
    assert found.count == 1
    np.testing.assert_allclose(found.strengths[:, 0], STRENGTHS / np.median(STRENGTHS), atol=0.06)
    for n in range(3):
        true = 1.5 * np.median(STRENGTHS) * _pattern(n)
        off = found.frames[n][0] - true
        # the mean of eight visits alone would leave 1 / sqrt(8) = 0.35
        assert np.std(off) < 0.2
        assert np.std(off) < 2 * found.errors[n][0]
        assert np.sum(found.frames[n][0] * true) / np.sum(true**2) == pytest.approx(1, abs=0.1)
    assert np.std((found.frames[2][0] - 1.5 * np.median(STRENGTHS) * _pattern(2))[20:24, 20:24]) < 0.5
    assert "standard errors" in found.why[0]
    assert "left out" in found.why[1]


def test_noise_gives_no_frame():
    found = sky_frames(*_cells(0.0), most=2)
    assert found.count == 0
    assert found.frames == {}


def test_a_second_pattern_of_its_own_strengths_is_a_second_frame():
    second = np.array([2.0, -2.0, 2.0, 2.0, -2.0, -2.0, 2.0, -2.0])
    found = sky_frames(*_cells(1.5, second=second), most=3)
    assert found.count == 2
    model = np.einsum("k,kyx->yx", found.strengths[1], found.frames[1])
    true = 1.5 * STRENGTHS[1] * _pattern(1) - 2 * _pattern(8, 11.0)
    assert np.std(model - true) < 0.35


def test_few_visits_and_missing_detectors_are_borne():
    values, errors = _cells(1.5)
    values[0][3] = errors[0][3] = None
    values[9], errors[9] = [None] * 8, [None] * 8
    found = sky_frames(values, errors, most=1)
    assert found.count == 1
    assert sorted(found.frames) == [0, 1, 2]
    short = {n: each[:3] for n, each in values.items()}
    assert sky_frames(short, {n: each[:3] for n, each in errors.items()}, most=1).count == 0


def test_interpolated_nodes_have_the_means_of_the_cells():
    cells = np.random.default_rng(4).normal(0, 1, (6, 5)).astype(np.float32)
    nodes = nodes_of(cells)
    pixels = interpolated(nodes, (96, 80), range(96), range(80))
    means = pixels.reshape(6, 16, 5, 16).mean(axis=(1, 3))
    np.testing.assert_allclose(means, cells, atol=5e-3)
