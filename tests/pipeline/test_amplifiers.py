"""Steps and row drift of amplifiers beside the sky: found where they are, absent where they are not."""

import dataclasses

import numpy as np
import pytest

import skysub
from skysub.background.amplifiers import Amplifier, amplifier_grid
from skysub.background.chebyshev import design_matrix, monomial_coefficients
from skysub.pipeline.amplifier_cells import Lattice, boundaries, measure_cells
from skysub.pipeline.amplifier_drift import Drift, DriftSystem
from skysub.pipeline.config import SkyConfig
from tests.pipeline.test_calibrate_image import FAST, make_field, model_of

SMALL = (512, 640)
SMOOTH = dataclasses.replace(FAST, sky=SkyConfig(amplifiers=False))


def with_amplifiers(field, added, rows, columns):
    """A field to whose image ``added`` is added, with a grid of amplifiers."""
    visit_image, sky, *more = field
    image = (visit_image.image + added).astype(np.float32)
    grid = amplifier_grid(visit_image.shape, rows=rows, columns=columns)
    return visit_image.replace(image=image, amplifiers=grid), sky + added, *more


def scatter(found, truth):
    """Rms over cells of 64 pixels of model - truth about its mean."""
    off = (model_of(found) - truth)[: truth.shape[0] // 64 * 64, : truth.shape[1] // 64 * 64]
    cells = off.reshape(off.shape[0] // 64, 64, -1, 64).mean(axis=(1, 3))
    return float(np.std(cells))


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_found_where_there_is_nothing(seed):
    visit_image = make_field(seed, stars=15, galaxies=50, shape=SMALL)[0]
    rows, columns = [(2, 4), (1, 2), (1, 1), (2, 2)][seed % 4]
    grid = amplifier_grid(SMALL, rows=rows, columns=columns)
    found = skysub.calibrate_image(visit_image.replace(amplifiers=grid), FAST)
    assert found.amplifiers is None
    if seed < 2:
        plain = skysub.calibrate_image(visit_image, SMOOTH)
        assert np.array_equal(found.preliminary_visit_image.image, plain.preliminary_visit_image.image)


@pytest.fixture(scope="module")
def stepped():
    """Steps of 4 e- among 2 x 4 amplifiers, three of which a step of 40 sets apart."""
    rng = np.random.default_rng(8)
    steps = rng.normal(0, 4, (2, 4))
    steps[0, :3] += 40
    added = np.repeat(np.repeat(steps, 512, axis=0), 256, axis=1)
    return *with_amplifiers(make_field(21), added, 2, 4), steps


def test_steps_are_found_and_taken_off(stepped):
    visit_image, truth, *_, steps = stepped
    found = skysub.calibrate_image(visit_image, FAST)
    assert "amplifiers" in found.flags
    assert found.amplifiers is found.preliminary_visit_image_background[0].amplifiers
    assert not found.amplifiers.drift
    off = found.amplifiers.steps - (steps - steps.mean()).ravel()
    # part of a pattern of steps is a polynomial: only what is left of it must be right
    assert scatter(found, truth) < 0.35
    assert np.abs(np.diff(off.reshape(2, 4), axis=1)).max() < 1.5
    smooth = skysub.calibrate_image(visit_image, SMOOTH)
    assert scatter(smooth, truth) > 10 * scatter(found, truth)
    cells = model_of(found) - truth
    pull = cells.reshape(8, 128, 8, 128).mean(axis=(1, 3))
    error = found.preliminary_visit_image_background.uncertainty().reshape(8, 128, 8, 128).mean(axis=(1, 3))
    assert 0.4 < np.sqrt(np.mean(((pull - pull.mean()) / error) ** 2)) < 2.0


def test_a_model_gives_the_image_back_in_place_and_with_threads(stepped):
    visit_image = stepped[0]
    found = skysub.calibrate_image(visit_image, FAST)
    layers = found.preliminary_visit_image_background
    image = found.preliminary_visit_image.image
    assert np.array_equal(layers[0].subtract_from(visit_image.image), image)
    copy = visit_image.replace(image=visit_image.image.copy(), mask=visit_image.mask.copy())
    again = skysub.calibrate_image(copy, FAST, overwrite=True, threads=3)
    assert np.array_equal(again.preliminary_visit_image.image, image)
    assert again.preliminary_visit_image.image is copy.image


@pytest.fixture(scope="module")
def drifting():
    """Two amplifiers whose rows drift by some 2 e- over 50 rows, each in its own way."""
    rng = np.random.default_rng(9)
    drift = np.repeat(rng.normal(0, 2, (20, 2)), 52, axis=0)[:1024]
    return *with_amplifiers(make_field(22), np.repeat(drift, 512, axis=1), 1, 2), drift


def test_drift_of_rows_is_found_in_each_amplifier(drifting):
    visit_image, truth, *_, drift = drifting
    found = skysub.calibrate_image(visit_image, FAST)
    assert found.amplifiers.rows_per_bin == 8
    smooth = skysub.calibrate_image(visit_image, SMOOTH)
    assert scatter(found, truth) < 0.4 * scatter(smooth, truth)
    left = model_of(found)[:, 100] - model_of(found)[:, 900]
    wanted = drift[:, 0] - drift[:, 1]
    assert np.corrcoef(left, wanted)[0, 1] > 0.9


def test_columns_that_share_something_are_no_drift(drifting):
    visit_image = drifting[0]
    turned = visit_image.replace(
        image=np.ascontiguousarray(visit_image.image.T),
        variance=np.ascontiguousarray(visit_image.variance.T),
        amplifiers=amplifier_grid((1024, 1024), rows=2, columns=1),
    )
    found = skysub.calibrate_image(turned, FAST)
    assert found.amplifiers is None or not found.amplifiers.drift


def test_light_across_a_boundary_is_no_step():
    visit_image, _, galaxy, _ = make_field(23, galaxy=(512, 520, 60, 300))
    cut = visit_image.replace(amplifiers=amplifier_grid(visit_image.shape, rows=2, columns=2))
    found, plain = skysub.calibrate_image(cut, FAST), skysub.calibrate_image(visit_image, SMOOTH)
    assert found.amplifiers is None
    assert np.array_equal(model_of(found), model_of(plain))
    assert galaxy.sum() > 0


def test_amplifiers_that_form_no_lattice_are_left_alone():
    visit_image = make_field(3, stars=5, galaxies=20, shape=SMALL)[0]
    boxes = (
        Amplifier("A", y=(0, 256), x=(0, 640)),
        Amplifier("B", y=(256, 512), x=(0, 320)),
        Amplifier("C", y=(256, 512), x=(320, 640)),
    )
    assert Lattice.of(boxes) is None
    assert skysub.calibrate_image(visit_image.replace(amplifiers=boxes), FAST).amplifiers is None


def test_boundaries_by_hand():
    image = np.zeros((128, 512), np.float32)
    image[:, 256:] += 3
    image[64:] += 5
    image[64:, 256:] += 2
    image[10:14, 228:288] = 1000
    lattice = Lattice.of(amplifier_grid(image.shape, rows=2, columns=2))
    flags = np.zeros(image.shape, np.uint8)
    cells = measure_cells(image, flags, 1, np.zeros((7, 7)), lattice, limit=50.0)
    assert cells.mean.shape == (16, 16)
    found = {(b.first, b.second): (round(b.step, 9), b.across_rows) for b in boundaries(cells, 1.0)}
    assert found == {
        (0, 1): (3.0, False), (2, 3): (5.0, False), (0, 2): (5.0, True), (1, 3): (7.0, True),
    }  # fmt: skip


def test_cells_are_the_mean_of_what_a_polynomial_leaves():
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, (37, 150)).astype(np.float32)
    flags = (rng.random(image.shape) < 0.2).astype(np.uint8)
    coefficients = rng.normal(0, 3, 10)
    y, x = (a.ravel() for a in np.mgrid[:37, :150].astype(float))
    smooth = (design_matrix(x, y, shape=image.shape, order=3) @ coefficients).reshape(image.shape)
    lattice = Lattice.of(amplifier_grid(image.shape, rows=2, columns=2))
    power = monomial_coefficients(coefficients, 3)
    cells = measure_cells((image + smooth).astype(np.float32), flags, 1, power, lattice, limit=2.0)
    assert list(cells.y_edges) == [0, 8, 16, 18, 26, 34, 37]
    assert list(cells.x_edges) == [0, 37, 75, 112, 150]
    kept = (flags[18:26, 37:75] == 0) & (np.abs(image[18:26, 37:75]) <= 2)
    assert cells.count[3, 1] == kept.sum()
    assert cells.mean[3, 1] == pytest.approx(image[18:26, 37:75][kept].mean(), abs=1e-4)


def test_drift_is_eliminated_as_from_the_full_matrix():
    rng = np.random.default_rng(2)
    bins, blocks, terms = 9, 4, 3
    precision = rng.uniform(0.5, 2, (bins, blocks))
    value = rng.normal(0, 1, (bins, blocks))
    matrix = rng.normal(0, 1, (bins, blocks, terms + 2))
    owners = np.repeat([[0, 0, 1, 1]], bins, axis=0)
    flat, weights = matrix.reshape(-1, terms + 2), precision.ravel()
    normal = flat.T @ (weights[:, None] * flat) + np.eye(terms + 2)
    right = flat.T @ (weights * value.ravel())
    system = DriftSystem(
        normal=normal, right=right, matrix=matrix, value=value, precision=precision, owners=owners,
        columns=2, terms=terms,
    )  # fmt: skip
    drift = Drift(deviation=1.3, length=2.5)
    lag = np.abs(np.subtract.outer(np.arange(bins), np.arange(bins)))
    kernel = 1.3**2 * np.exp(-lag / 2.5)
    share = np.kron(kernel, np.kron(np.eye(2), np.ones((2, 2))))
    full = share + np.diag(1 / weights)
    inverse = np.linalg.inv(full)
    expected = np.linalg.solve(flat.T @ inverse @ flat + np.eye(terms + 2), flat.T @ inverse @ value.ravel())
    coefficients, _ = system.solve(drift)
    np.testing.assert_allclose(coefficients, expected, rtol=1e-9)
    left = value.ravel() - flat @ expected
    np.testing.assert_allclose(
        system.drift_of(drift, coefficients).ravel(), share @ inverse @ left, rtol=1e-8, atol=1e-10
    )
    _, deviations = system.drift_by_amplifier(drift, coefficients)
    posterior = share - share @ inverse @ share
    np.testing.assert_allclose(deviations[0], np.sqrt(np.diag(posterior)[::4]), rtol=1e-8)

    def logarithm(covariance):
        total = flat @ flat.T + covariance
        return (
            -0.5 * value.ravel() @ np.linalg.solve(total, value.ravel()) - 0.5 * np.linalg.slogdet(total)[1]
        )

    assert system.evidence(drift) - system.evidence(None) == pytest.approx(
        logarithm(full) - logarithm(np.diag(1 / weights)), rel=1e-9
    )
