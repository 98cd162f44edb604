"""The equations of a visit against the same written down densely, and the spline against values by hand."""

import numpy as np
import pytest

from skysub.pipeline.joint import kernels
from skysub.pipeline.joint.focal_plane import directions_of, place_detectors, positions
from skysub.pipeline.joint.spline import Spline
from skysub.pipeline.joint.system import DetectorRows, System, Widths


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(5)


def _system(rng, *, templates):
    spline = Spline.over((0.0, 500.0, 0.0, 700.0), 100.0)
    rows = []
    for number, (x0, y0) in enumerate([(0, 0), (260, 10), (20, 360), (250, 350)]):
        x, y = x0 + 240 * rng.random(60), y0 + 330 * rng.random(60)
        local = np.concatenate(
            [
                rng.standard_normal((60, templates)),
                np.ones((60, 1)),
                (x - x0 < 120).astype(float)[:, None],
                (x - x0 >= 120).astype(float)[:, None],
            ],
            axis=1,
        )
        rows.append(
            DetectorRows(
                number, spline.basis(x, y), local, np.array([0, 1, 1]), 5 + rng.standard_normal(60) + 0.01 * x
            )
        )
    return System(spline, rows, templates)


def _dense(system, weights, widths):
    """Normal equations of all unknowns at once: spline, templates, then the terms of each detector."""
    p, k = system.spline.size, system.templates
    own = 3
    total = p + k + own * len(system.detectors)
    normal, right = np.zeros((total, total)), np.zeros(total)
    normal[:p, :p] = widths.penalty * system.penalty
    for number, (rows, w) in enumerate(zip(system.detectors, weights, strict=True)):
        design = np.zeros((len(w), total))
        basis = rows.basis
        for row in range(len(w)):
            for q in range(4):
                for s in range(4):
                    index = (basis.index_y[row] + q) * basis.columns + basis.index_x[row] + s
                    design[row, basis.members[index]] += basis.basis_y[row, q] * basis.basis_x[row, s]
        design[:, p : p + k] = rows.local[:, :k]
        at = p + k + own * number
        design[:, at : at + own] = rows.local[:, k:]
        normal += design.T @ (w[:, None] * design)
        right += design.T @ (w * rows.values)
        deviation = widths.of_groups()[rows.groups]
        normal[range(at, at + own), range(at, at + own)] += 1 / deviation**2
    return normal, right


@pytest.mark.parametrize("templates", [0, 2])
def test_elimination_gives_the_dense_solution(rng, templates):
    system = _system(rng, templates=templates)
    weights = [rng.random(60) * (rng.random(60) > 0.1) for _ in range(4)]
    widths = Widths(0.3, offset=2.0, amplifier=0.7)
    solution = system.solve(system.summed(weights), widths)
    normal, right = _dense(system, weights, widths)
    expected, covariance = np.linalg.solve(normal, right), np.linalg.inv(normal)
    shared = system.spline.size + templates
    np.testing.assert_allclose(solution.coefficients, expected[:shared], rtol=1e-9, atol=1e-9)
    for number in range(4):
        own = slice(shared + 3 * number, shared + 3 * number + 3)
        np.testing.assert_allclose(solution.local[number].terms, expected[own], rtol=1e-9, atol=1e-9)
        place = np.concatenate([system.places[number], np.arange(own.start, own.stop)])
        np.testing.assert_allclose(
            solution.local[number].covariance, covariance[np.ix_(place, place)], rtol=1e-8, atol=1e-9
        )


def test_a_stated_offset_is_what_an_unseen_detector_gets(rng):
    system = _system(rng, templates=0)
    stated = System(system.spline, system.detectors, 0, {2: (7.0, 0.5)})
    weights = [np.ones(60), np.ones(60), np.zeros(60), np.ones(60)]
    solution = stated.solve(stated.summed(weights), Widths(0.3, offset=2.0, amplifier=0.7))
    assert solution.local[2].terms[0] == pytest.approx(7.0, abs=1e-9)
    assert np.sqrt(solution.local[2].covariance[-3, -3]) == pytest.approx(0.5, abs=1e-9)


def test_selected_inverse_of_a_matrix_with_an_envelope():
    matrix = np.array(
        [[4.0, 1.0, 0.0, 0.5], [1.0, 5.0, 2.0, 0.0], [0.0, 2.0, 6.0, 1.0], [0.5, 0.0, 1.0, 3.0]]
    )
    first = np.array([0, 0, 1, 0])
    lower = matrix.copy()
    assert kernels.factor(lower, first)
    found = np.zeros((4, 4))
    kernels.selected_inverse(lower, first, found)
    expected = np.linalg.inv(matrix)
    for i in range(4):
        for j in range(first[i], i + 1):
            assert found[i, j] == pytest.approx(expected[i, j], abs=1e-14)
    assert not kernels.factor(np.array([[1.0, 0.0], [2.0, 1.0]]), np.zeros(2, np.int64))


def test_spline_values_at_a_knot_and_between():
    spline = Spline.over((10.0, 40.0, 0.0, 20.0), 10.0)
    assert (spline.cells_x, spline.cells_y, spline.shape) == (3, 2, (5, 6))
    basis = spline.basis(np.array([20.0, 25.0]), np.array([10.0, 10.0]))
    np.testing.assert_allclose(basis.basis_x[0], [1 / 6, 4 / 6, 1 / 6, 0], atol=1e-15)
    np.testing.assert_allclose(basis.basis_x[1], [1 / 48, 23 / 48, 23 / 48, 1 / 48], atol=1e-15)
    # coefficients that run straight are a straight line, and cost nothing
    line = np.add.outer(2.0 * np.arange(5), 3.0 * np.arange(6)).ravel()
    assert line @ spline.penalty() @ line == pytest.approx(0, abs=1e-9)
    bent = line.copy()
    bent[8] += 1
    assert bent @ spline.penalty() @ bent == pytest.approx(1 + 4 + 1 + 4 + 1, abs=1e-9)


def _record(make_record, detector, wcs):
    return make_record(detector, place=None, directions=directions_of(wcs, (2000, 2048)))


def test_places_come_from_world_coordinates(make_record):
    from astropy.wcs import WCS

    def tan(crpix, *, angle=0.0, crval=(62.0, -37.0)):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = crval
        wcs.wcs.crpix = crpix
        c, s = 0.2 / 3600 * np.cos(angle), 0.2 / 3600 * np.sin(angle)
        wcs.wcs.cd = [[-c, -s], [-s, c]]
        wcs.wcs.set()
        return wcs

    # the second detector is 2100 pixels to the right of the first, whatever way the camera is turned
    for angle in (0.0, 0.7, 2.5):
        wcs = [tan((1.0, 1.0), angle=angle), tan((1.0 - 2100, 1.0), angle=angle)]
        places = place_detectors([_record(make_record, n, each) for n, each in enumerate(wcs)])
        ends = [positions(places[n], np.array([0.0, 2047.0]), np.array([0.0, 0.0])) for n in (0, 1)]
        along = ends[1][0][0] - ends[0][0][0]
        assert abs(along) == pytest.approx(2100, abs=0.5)
        assert ends[1][1][0] - ends[0][1][0] == pytest.approx(0, abs=0.5)
        assert abs(ends[0][0][1] - ends[0][0][0]) == pytest.approx(2047, abs=0.5)
    elsewhere = _record(make_record, 2, tan((1.0, 1.0), crval=(200.0, 10.0)))
    near = [_record(make_record, n, tan((1.0 - 2100 * n, 1.0))) for n in (0, 1)]
    assert sorted(place_detectors([*near, elsewhere])) == [0, 1]
    assert place_detectors([make_record(0, place=None)]) == {}
    assert directions_of(object(), (2000, 2048)) is None
