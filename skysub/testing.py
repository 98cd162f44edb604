"""For tests of code that uses skysub: small visits in milliseconds, and assertions that say what differs.

Whole visits with every component of a survey's sky come from ``skysub simulate``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from numpy.typing import NDArray

    from skysub.background.model import Background, BackgroundList
    from skysub.visit.planes import MaskPlanes

__all__ = [
    "assert_backgrounds_equal",
    "assert_planes_equal",
    "assert_visit_images_equal",
    "make_sky",
    "make_visit_image",
]

READ_NOISE = 5.5


def make_sky(
    shape: tuple[int, int] = (300, 400), *, level: float = 900.0, gradient: float = 0.02
) -> NDArray[np.float32]:
    """Sky of `make_visit_image`: a plane with a quadratic term, (ny, nx) float32, electron per pixel.

    Parameters
    ----------
    level
        In the middle, electron per pixel.
    gradient
        Change from edge to edge along x, fraction of ``level``; half of it along y.
    """
    y, x = (np.linspace(-1, 1, n) for n in shape)
    plane = 0.5 * gradient * (x[None, :] + 0.5 * y[:, None] + 0.25 * x[None, :] * y[:, None])
    return (level * (1 + plane)).astype(np.float32)


def make_visit_image(
    shape: tuple[int, int] = (300, 400),
    *,
    seed: int = 0,
    visit: int = 1,
    detector: int = 0,
    band: str = "r",
    level: float = 900.0,
    gradient: float = 0.02,
    sources: int = 20,
    bad_columns: int = 1,
    detected: bool = True,
) -> VisitImage:
    """Make a small synthetic visit image in milliseconds: sky, point sources, noise, a few defects.

    Parameters
    ----------
    shape
        (ny, nx), pixel.
    seed
        Of noise and positions; the same arguments give the same bits.
    level, gradient
        Of the sky, see `make_sky`.
    sources
        Number of point sources, with a full width at half maximum of 4 pixels and of some 1e3 to 1e5
        electrons; the brightest one is saturated.
    bad_columns
        Number of columns with the plane BAD.
    detected
        Whether the pixels of sources have the plane DETECTED.

    Returns
    -------
    visit_image
        In electron, with variance, WCS, calibration and the planes of `AFW_PLANES`.
    """
    random = np.random.default_rng(np.random.SeedSequence([seed, visit, detector]))
    ny, nx = shape
    image = make_sky(shape, level=level, gradient=gradient)
    mask = np.zeros(shape, np.int32)
    positions = random.random((sources, 2)) * (ny, nx)
    fluxes = 10 ** random.uniform(3, 5, sources)
    for (y, x), flux in zip(positions, fluxes, strict=True):
        rows, columns = (slice(max(0, int(at) - 12), int(at) + 13) for at in (y, x))
        r2 = (np.arange(ny)[rows, None] - y) ** 2 + (np.arange(nx)[None, columns] - x) ** 2
        light = flux / (2 * np.pi * 1.7**2) * np.exp(-0.5 * r2 / 1.7**2)
        image[rows, columns] += light.astype(np.float32)
        if detected:
            mask[rows, columns] |= np.where(light > 1.0, AFW_PLANES.bits("DETECTED"), 0).astype(np.int32)
    if sources:
        y, x = positions[np.argmax(fluxes)].astype(int)
        core = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
        image[core] = 133_000
        mask[core] |= AFW_PLANES.bits("SAT")
    variance = image + np.float32(READ_NOISE**2)
    image += np.sqrt(variance) * random.standard_normal(shape, dtype=np.float32)
    for x in random.integers(0, nx, bad_columns):
        image[:, x] = 0
        mask[:, x] |= AFW_PLANES.bits("BAD")
    return VisitImage(
        image=image,
        mask=mask,
        planes=AFW_PLANES,
        variance=variance,
        unit="electron",
        wcs=_wcs(shape),
        photo_calib=10 ** (0.4 * (31.4 - 32.05)),
        visit=visit,
        detector=detector,
        band=band,
        exposure_time=30.0,
        gain=1.0,
        read_noise=READ_NOISE,
    )


def assert_visit_images_equal(
    actual: VisitImage, expected: VisitImage, *, rtol: float = 0.0, atol: float = 0.0
) -> None:
    """Assert that two visit images have the same pixels, planes, WCS and facts; header and path may differ.

    Parameters
    ----------
    rtol, atol
        Relative and absolute tolerance of image and variance; 0 means the same value in every pixel,
        where NaN equals NaN.

    Raises
    ------
    AssertionError
        Naming the first field that differs and, for pixels, where they differ first.
    """
    for name in ("visit", "detector", "band", "unit", "xy0"):
        _assert_same(name, getattr(actual, name), getattr(expected, name))
    for name in ("exposure_time", "gain", "read_noise", "photo_calib"):
        mine, theirs = getattr(actual, name), getattr(expected, name)
        if mine is None or theirs is None:
            _assert_same(name, mine, theirs)
        elif not np.isclose(mine, theirs, rtol=1e-12, atol=0, equal_nan=True):
            raise AssertionError(f"{name} is {mine!r}, expected {theirs!r}")
    _assert_arrays("image", actual.image, expected.image, rtol, atol)
    assert_planes_equal((actual.mask, actual.planes), (expected.mask, expected.planes))
    if actual.variance is None or expected.variance is None:
        _assert_same("variance", _presence(actual.variance), _presence(expected.variance))
    else:
        _assert_arrays("variance", actual.variance, expected.variance, rtol, atol)
    _assert_wcs(actual, expected)


def assert_planes_equal(
    actual: tuple[NDArray[np.integer], MaskPlanes],
    expected: tuple[NDArray[np.integer], MaskPlanes],
    *,
    names: tuple[str, ...] | None = None,
) -> None:
    """Assert that two masks mean the same, plane by plane; the planes may lie at different bits.

    Parameters
    ----------
    actual, expected
        (mask, planes) each; mask (ny, nx) integer.
    names
        Planes to compare; all by default, and then both masks must have the same ones.

    Raises
    ------
    AssertionError
        Naming the first plane that differs, in how many pixels, and where first.
    """
    (mask, planes), (other, others) = actual, expected
    if names is None:
        missing, extra = sorted(set(others) - set(planes)), sorted(set(planes) - set(others))
        if missing or extra:
            raise AssertionError(
                f"mask planes differ: missing {missing or 'none'}, not expected {extra or 'none'}"
            )
        names = others.names
    _assert_same("shape of mask", mask.shape, other.shape)
    for name in names:
        mine, theirs = (mask & planes.bits(name)) != 0, (other & others.bits(name)) != 0
        if not np.array_equal(mine, theirs):
            raise AssertionError(_difference(f"mask plane {name}", mine, theirs, mine != theirs))


def assert_backgrounds_equal(
    actual: Background | BackgroundList,
    expected: Background | BackgroundList,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
) -> None:
    """Assert that two backgrounds are the same: grids, statistics, coefficients and amplifiers of all layers.

    Parameters
    ----------
    rtol, atol
        Tolerance of statistics and coefficients; 0 means the same bits (NaN equals NaN).

    Raises
    ------
    AssertionError
        Naming the layer and the first thing in it that differs, and where.
    """
    mine, theirs = _layers(actual), _layers(expected)
    _assert_same("number of layers", len(mine), len(theirs))
    for number, (layer, other) in enumerate(zip(mine, theirs, strict=True)):
        head = f"layer {number}: "
        _assert_same(head + "shape of the image", layer.shape, other.shape)
        _assert_arrays(head + "x edges", layer.grid.x_edges, other.grid.x_edges, 0, 0)
        _assert_arrays(head + "y edges", layer.grid.y_edges, other.grid.y_edges, 0, 0)
        _assert_same(head + "order", layer.order, other.order)
        for name in ("mean", "error", "count"):
            values, expected_values = getattr(layer.statistics, name), getattr(other.statistics, name)
            _assert_arrays(f"{head}statistics.{name}", values, expected_values, rtol, atol)
        _assert_arrays(head + "coefficients", layer.coefficients, other.coefficients, rtol, atol)
        added, expected_added = layer.amplifiers, other.amplifiers
        _assert_same(head + "amplifiers", _presence(added), _presence(expected_added))
        if added is not None and expected_added is not None:
            _assert_same(head + "amplifiers", added.described(), expected_added.described())
            arrays = added.as_array(), expected_added.as_array()
            _assert_arrays(head + "steps and drift of amplifiers", *arrays, rtol, atol)


def _layers(background: Any) -> list[Background]:
    return list(background) if hasattr(background, "__iter__") else [background]


def _presence(array: object) -> str:
    return "absent" if array is None else "present"


def _assert_same(name: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"{name} is {actual!r}, expected {expected!r}")


def _assert_arrays(name: str, actual: NDArray[Any], expected: NDArray[Any], rtol: float, atol: float) -> None:
    _assert_same(f"shape of {name}", actual.shape, expected.shape)
    _assert_same(f"type of {name}", actual.dtype, expected.dtype)
    if rtol == 0 and atol == 0:
        wrong = ~((actual == expected) | ((actual != actual) & (expected != expected)))  # noqa: PLR0124 - NaN
    else:
        wrong = ~np.isclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True)
    if wrong.any():
        raise AssertionError(_difference(name, actual, expected, wrong))


def _difference(name: str, actual: NDArray[Any], expected: NDArray[Any], wrong: NDArray[np.bool_]) -> str:
    first = tuple(int(at) for at in np.argwhere(wrong)[0])
    where = f"(y, x) = {first}" if wrong.ndim == 2 else f"index {first[0]}"
    message = (
        f"{name} differs in {int(wrong.sum())} of {wrong.size} elements, first at {where}: "
        f"{actual[first]!r}, expected {expected[first]!r}"
    )
    if actual.dtype.kind == "f":
        gap = np.abs(actual.astype(np.float64) - expected)[wrong]
        if np.isfinite(gap).any():
            message += f"; by {np.nanmax(gap):g} at most"
    return message


def _assert_wcs(actual: VisitImage, expected: VisitImage) -> None:
    if actual.wcs is None or expected.wcs is None:
        _assert_same("wcs", _presence(actual.wcs), _presence(expected.wcs))
        return
    ny, nx = expected.shape
    x, y = np.array([0, nx - 1, 0, nx - 1, nx / 2]), np.array([0, 0, ny - 1, ny - 1, ny / 2])
    mine, theirs = (
        np.stack(image.wcs.wcs_pix2world(x, y, 0)) for image in (actual, expected) if image.wcs is not None
    )
    apart = float(np.max(np.abs(mine - theirs)))
    if not apart < 1e-9:
        raise AssertionError(f"wcs puts the corners or the centre up to {apart:g} degrees elsewhere")


def _wcs(shape: tuple[int, int]) -> WCS:
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [62.0, -37.0]
    wcs.wcs.crpix = [shape[1] / 2 + 0.5, shape[0] / 2 + 0.5]
    wcs.wcs.cd = [[-0.2 / 3600, 0.0], [0.0, 0.2 / 3600]]
    wcs.wcs.set()
    return wcs
