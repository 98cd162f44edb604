"""Galaxies and stars: their catalogue, which stays on the sky, and their light on one detector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from skysub.simulation import kernels
from skysub.simulation.observation import GAP, spiral
from skysub.simulation.profiles import PROFILE_SIZES, profile_tables
from skysub.simulation.scene import BANDS
from skysub.simulation.seeds import random_stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.simulation.observation import Observation
    from skysub.simulation.scene import Galaxies, Scene, Stars

__all__ = ["CATALOG_TYPE", "catalog", "paint_aureoles", "paint_sources"]

CATALOG_TYPE = np.dtype([
    ("id", np.int64),
    ("type", "U12"),
    ("x", np.float64),
    ("y", np.float64),
    ("ra", np.float64),
    ("dec", np.float64),
    ("magnitude", np.float64),
    ("flux", np.float64),
    ("radius", np.float64),
    ("axis_ratio", np.float64),
    ("angle", np.float64),
    ("bulge", np.float64),
    ("detected", np.bool_),
])  # fmt: skip
"""Columns of a truth catalogue: identity of a source in every visit; "star", "galaxy", "probe_star" or
"probe_galaxy"; position in pixels and degrees; AB magnitude and electrons; effective radius along the
geometric mean of the axes in pixels (0: a point), axis ratio, angle of the major axis from x in radians,
part of the light in the bulge; whether a point source's or galaxy's own light is 5 sigma of the sky."""

TILE = 512
"""Edge of the tiles of sky that sources are drawn in, pixel."""
FLOOR = 5e-4
"""Light below this is not painted, electron per pixel: half of what planes are rounded to."""
GALAXY_MARGIN = 200.0
"""Galaxies this far beyond the detector's edge are left out, pixel; large ones stay further out."""
AUREOLE_CELL = 16
BRIGHT = 18.0
"""Stars brighter than this get an aureole of their own; the others share one, smoothed over cells."""
ARCMIN2 = (60 / 0.2) ** 2


def catalog(scene: Scene, seen: Observation, *, seed: int) -> NDArray[np.void]:
    """Every source that may send light to one detector, by rising id.

    Returns
    -------
    catalog
        (n,) of `CATALOG_TYPE`; positions may lie beyond the detector's edges.
    """
    margin = scene.stars.aureole_radius if scene.stars.aureole > 0 else 64.0
    ny, nx = seen.shape
    corners = [seen.sky_of_pixel(x, y) for x in (-margin, nx + margin) for y in (-margin, ny + margin)]
    low = [math.floor(min(c[k] for c in corners) / TILE) for k in range(2)]
    high = [math.floor(max(c[k] for c in corners) / TILE) for k in range(2)]
    tiles = [(y, x) for y in range(low[1], high[1] + 1) for x in range(low[0], high[0] + 1)]
    found = np.concatenate([
        _probes(scene, seen, seed),
        *(_stars_of_tile(scene, tile, seed) for tile in tiles),
        *(_galaxies_of_tile(scene, seen, tile, seed) for tile in tiles if _is_near(seen, tile)),
    ])  # fmt: skip
    found["x"], found["y"] = seen.to_pixel(found["x"], found["y"])
    found["flux"] = seen.flux(found["magnitude"])
    found["angle"] += seen.rotation
    reach = np.where(found["radius"] > 0, np.maximum(GALAXY_MARGIN, 12 * found["radius"]), margin)
    near = (
        (found["x"] > -reach) & (found["x"] < nx + reach) & (found["y"] > -reach) & (found["y"] < ny + reach)
    )
    found = found[near]
    area = seen.psf_area + 4 * math.pi * found["radius"] ** 2
    found["detected"] = found["flux"] > 5 * np.sqrt(area * seen.pixel_variance)
    if len(found):
        found["ra"], found["dec"] = seen.wcs().wcs_pix2world(found["x"], found["y"], 0)
    return found


def paint_sources(sources: NDArray[np.void], seen: Observation, *, stars: Stars) -> NDArray[np.float32]:
    """Light of sources without aureoles, (ny, nx) float32, electron per pixel."""
    out = np.zeros(seen.shape, np.float32)
    points = sources[sources["radius"] == 0]
    x, y, flux = _columns(points, "x", "y", "flux")
    kernels.add_moffats(x, y, flux * (1 - stars.aureole), seen.psf_scale, FLOOR, out)
    extended = sources[sources["radius"] > 0]
    if len(extended):
        for part, shrink in ((1 - extended["bulge"], 1.0), (extended["bulge"], 0.25)):
            lit = part > 0
            _paint_disks(extended[lit], part[lit], shrink, seen, out)
    kernels.rounded(out)
    return out


def paint_aureoles(sources: NDArray[np.void], seen: Observation, *, stars: Stars) -> NDArray[np.float32]:
    """Aureoles of all stars on and near the detector, (ny, nx) float32, electron per pixel.

    The profile is (1 - r^2 / R^2)^2 / (r^2 + c^2) out to R.
    """
    if stars.aureole == 0:
        return np.broadcast_to(np.float32(0), seen.shape)
    out = np.zeros(seen.shape, np.float32)
    core2, reach = stars.aureole_core**2, stars.aureole_radius
    # 2 pi times the integral of r (1 - r2/R2)^2 / (r2 + c2), by t = r2
    a = core2 / reach**2
    norm = stars.aureole / (math.pi * ((1 + a) ** 2 * math.log((1 + a) / a) - (1 + a) - 0.5))
    points = sources[sources["radius"] == 0]
    bright = points["magnitude"] < BRIGHT
    lit = points[bright]
    x, y, flux = _columns(lit, "x", "y", "flux")
    kernels.add_aureoles(x, y, flux, stars.aureole_core, reach, norm, out)
    _add_shared_aureole(points[~bright], stars, norm, out)
    kernels.rounded(out)
    return out


def _columns(sources: NDArray[np.void], *names: str) -> list[NDArray[np.float64]]:
    return [np.ascontiguousarray(sources[name]) for name in names]


def _add_shared_aureole(faint: NDArray[np.void], stars: Stars, norm: float, out: NDArray[np.float32]) -> None:
    """Light of faint stars gathered in cells, spread by the aureole's profile, and painted smoothly."""
    ny, nx = out.shape
    cells = math.ceil(stars.aureole_radius / AUREOLE_CELL) + 2
    margin = cells * AUREOLE_CELL
    gy, gx = -(-ny // AUREOLE_CELL) + 2 * cells, -(-nx // AUREOLE_CELL) + 2 * cells
    edges_y, edges_x = (
        np.arange(gy + 1) * AUREOLE_CELL - margin - 0.5,
        np.arange(gx + 1) * AUREOLE_CELL - margin - 0.5,
    )
    light, _, _ = np.histogram2d(faint["y"], faint["x"], bins=(edges_y, edges_x), weights=faint["flux"])
    at = np.arange(-cells, cells + 1) * AUREOLE_CELL
    r2 = np.minimum(at[:, None] ** 2 + at[None, :] ** 2, stars.aureole_radius**2)
    profile = norm * (1 - r2 / stars.aureole_radius**2) ** 2 / (r2 + stars.aureole_core**2)
    size = (gy + 2 * cells, gx + 2 * cells)
    spread = np.fft.irfft2(np.fft.rfft2(light, size) * np.fft.rfft2(profile, size), size)
    coarse = np.maximum(spread[cells : cells + gy, cells : cells + gx], 0).astype(np.float32)
    kernels.add_upsampled(coarse, AUREOLE_CELL, margin, margin, out)


def _paint_disks(
    sources: NDArray[np.void],
    part: NDArray[np.float64],
    shrink: float,
    seen: Observation,
    out: NDArray[np.float32],
) -> None:
    radii = sources["radius"] * shrink
    known, sizes = np.unique(radii, return_inverse=True)
    tables, steps = profile_tables(seen.psf_scale, tuple(known.tolist()))
    # the PSF rounds what it blurs: second moments of disk and PSF add up
    disk, blur = 1.5 * radii**2, seen.psf_scale**2
    q = np.sqrt((disk * sources["axis_ratio"] + blur) / (disk / sources["axis_ratio"] + blur))
    c, s = np.cos(sources["angle"]), np.sin(sources["angle"])
    m00, m11 = q * c * c + s * s / q, q * s * s + c * c / q
    m01 = (q - 1 / q) * c * s
    x, y, flux = _columns(sources, "x", "y", "flux")
    kernels.add_profiles(x, y, flux * part, sizes, m00, m01, m11, tables, steps, FLOOR, out)


def _is_near(seen: Observation, tile: tuple[int, int]) -> bool:
    x, y = seen.to_pixel(np.array((tile[1] + 0.5) * TILE), np.array((tile[0] + 0.5) * TILE))
    margin = TILE + GALAXY_MARGIN
    return bool(-margin < x < seen.shape[1] + margin and -margin < y < seen.shape[0] + margin)


def _stars_of_tile(scene: Scene, tile: tuple[int, int], seed: int) -> NDArray[np.void]:
    """Field stars of one tile, in sky positions; the same in every visit."""
    random = random_stream(seed, "stars", *tile)
    return _rows("star", random, _star_magnitudes(random, scene.stars, TILE * TILE / ARCMIN2), tile)


def _galaxies_of_tile(scene: Scene, seen: Observation, tile: tuple[int, int], seed: int) -> NDArray[np.void]:
    """Field galaxies of one tile, in sky positions; the same in every visit, a colour apart in every band."""
    random = random_stream(seed, "galaxies", *tile)
    i_band = _galaxy_magnitudes(random, scene.galaxies, TILE * TILE / ARCMIN2)
    galaxies = _rows("galaxy", random, i_band + BANDS[seen.band].galaxy_color, tile)
    n = len(galaxies)
    # effective radii: 1.2 arcsec at i = 20, 0.4 at i = 24, 0.2 at i = 26.5, scattered by 0.2 dex
    radius = 2.0 * 10 ** (-0.12 * (i_band - 24) + 0.2 * random.standard_normal(n))
    galaxies["radius"] = _known_radius(np.clip(radius, 0.5, 30.0))
    galaxies["axis_ratio"] = random.uniform(0.25, 1.0, n)
    galaxies["angle"] = random.uniform(0, math.pi, n)
    galaxies["bulge"] = random.uniform(0, 0.4, n)
    return galaxies


def _known_radius(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Next larger radius of `PROFILE_SIZES`: a few tables serve thousands of galaxies."""
    return PROFILE_SIZES[np.minimum(np.searchsorted(PROFILE_SIZES, radius), len(PROFILE_SIZES) - 1)]


def _rows(
    kind: str, random: np.random.Generator, magnitudes: NDArray[np.float64], tile: tuple[int, int]
) -> NDArray[np.void]:
    n = len(magnitudes)
    rows = np.zeros(n, CATALOG_TYPE)
    tile_number = (tile[0] + 2**12) * 2**13 + tile[1] + 2**12
    rows["id"] = (tile_number * 2 + (kind == "galaxy")) * 2**20 + np.arange(n)
    rows["type"] = kind
    rows["x"] = (tile[1] + random.random(n)) * TILE
    rows["y"] = (tile[0] + random.random(n)) * TILE
    rows["magnitude"] = magnitudes
    rows["axis_ratio"] = 1.0
    return rows


def _star_magnitudes(random: np.random.Generator, stars: Stars, area: float) -> NDArray[np.float64]:
    brighter_than_faintest = 6 * stars.density * area * 10 ** (stars.slope * (stars.faintest - 24.5))
    n = random.poisson(brighter_than_faintest)
    magnitudes = stars.faintest + np.log10(1 - random.random(n)) / stars.slope
    kept: NDArray[np.float64] = magnitudes[magnitudes > stars.brightest]
    return kept


def _galaxy_magnitudes(random: np.random.Generator, galaxies: Galaxies, area: float) -> NDArray[np.float64]:
    slope, knee = 0.31, min(26.0, galaxies.faintest)
    at_knee = 46 * 10 ** (slope * (knee - 25)) * galaxies.density * area
    n = random.poisson(at_knee / (slope * math.log(10)))
    bright = knee + np.log10(1 - random.random(n)) / slope
    bright = bright[bright > galaxies.brightest]
    faint_slope = galaxies.faint_slope
    span = 10 ** (faint_slope * (galaxies.faintest - knee)) - 1
    m = random.poisson(at_knee * span / (faint_slope * math.log(10)))
    faint = knee + np.log10(1 + random.random(m) * span) / faint_slope
    return np.concatenate([bright, faint])


def _probes(scene: Scene, seen: Observation, seed: int) -> NDArray[np.void]:
    """Objects to be scored, fixed on the sky where an undithered visit has this detector's middle."""
    probes = scene.probes
    rows = [np.zeros(0, CATALOG_TYPE)]
    if not (probes.galaxy_radius or probes.small_galaxies or probes.star_magnitudes):
        return rows[0]
    ny, nx = seen.shape
    column, row = spiral(seen.detector)
    # a dithered, rotated visit may see a neighbour's probe; by then the spiral has passed all eight
    for number in range((2 * max(abs(column), abs(row)) + 3) ** 2):
        right, up = (there - here for there, here in zip(spiral(number), (column, row), strict=True))
        if max(abs(right), abs(up)) <= 1:
            middle = seen.x0 + right * (nx + GAP) + 0.47 * nx, seen.y0 + up * (ny + GAP) + 0.44 * ny
            rows.append(_probes_of(number, middle, scene=scene, seen=seen, seed=seed))
    return np.concatenate(rows)


def _probes_of(
    number: int, position: tuple[float, float], *, scene: Scene, seen: Observation, seed: int
) -> NDArray[np.void]:
    probes = scene.probes
    x, y = position
    random = random_stream(seed, "probes", number)
    n = probes.small_galaxies
    radii = np.concatenate([
        [probes.galaxy_radius or 0.0],
        np.geomspace(5, 20, n) if n else [],
    ])  # fmt: skip
    rows = np.zeros(len(radii), CATALOG_TYPE)
    ny, nx = seen.shape
    rows["type"] = "probe_galaxy"
    rows["x"] = x + np.concatenate([[0.0], random.uniform(-0.45, 0.45, n) * nx])
    rows["y"] = y + np.concatenate([[0.0], random.uniform(-0.4, 0.45, n) * ny])
    rows["radius"] = radii
    rows["axis_ratio"] = random.uniform(0.6, 1.0, len(radii))
    rows["angle"] = random.uniform(0, math.pi, len(radii))
    # half of the light lies within the effective radius
    with np.errstate(divide="ignore"):
        rows["magnitude"] = probes.surface_brightness - 2.5 * np.log10(
            2 * math.pi * (0.2 * rows["radius"]) ** 2
        )
    rows = rows[rows["radius"] > 0]
    if probes.star_magnitudes:
        star = np.zeros(1, CATALOG_TYPE)
        star["type"], star["axis_ratio"], star["x"], star["y"] = "probe_star", 1.0, x, y
        star["magnitude"] = probes.star_magnitudes[number % len(probes.star_magnitudes)]
        rows = np.concatenate([rows, star])
    rows["id"] = 2**50 + number * 2**10 + np.arange(len(rows))
    return rows
