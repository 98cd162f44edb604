"""Apertures, moments and the like of rows of a table: sources, blends and empty sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.threads import in_threads
from skysub.measurement.config import APERTURES
from skysub.measurement.stars import Tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.extended import Templates
    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["Photometry", "Targets", "measure_places", "shapes_at"]

_ITERATIONS = 20
_BAND = 128
"""Rows of places whose apertures share their running sums."""
_CUT = 6.5
"""Half-width of a star's cut-out, in sigma of the PSF."""
_RING = (7.0, 15.0)
"""Radii of the ring of the local background, in sigma of the PSF, as LSST takes them."""
_RING_CLIP, _RING_PASSES = 3.0, 3


@dataclass(frozen=True, eq=False)
class Targets:
    """What is measured, (n,): places, and the model of each."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    flux: NDArray[np.float64]
    """Of the PSF; 0 where there is no model."""
    template: NDArray[np.int64]
    """Index of the source's template, or -1."""
    templates: Templates

    @classmethod
    def stars(
        cls, y: NDArray[np.float64], x: NDArray[np.float64], flux: NDArray[np.float64] | None = None
    ) -> Targets:
        """Targets that have no template; without a flux, no model at all."""
        from skysub.measurement.extended import Templates

        flux = np.zeros(len(y)) if flux is None else flux
        return cls(y, x, flux, np.full(len(y), -1), Templates.none())


@dataclass(frozen=True, eq=False)
class Photometry:
    """Measurements of targets (n,)."""

    apertures: NDArray[np.float64]
    """(n, radii): sums of light, counts."""
    aperture_errors: NDArray[np.float64]
    truncated: NDArray[np.bool_]
    """(n, radii): discs that reach beyond the image."""
    shapes: NDArray[np.float64]
    """(n, 8) as `skysub.measurement.photometry_kernels.shape_of_child` has them."""
    kron: NDArray[np.float64]
    """(n, 4): Kron flux, its variance, first moment of the radius, own share of the light under it."""
    psf: NDArray[np.float64]
    """(n, 8) as `skysub.measurement.child_kernels` has them: sums of the PSF over the cut-out."""
    ring: NDArray[np.float64]
    """(n, 3): level, scatter and pixels of the local background."""


def measure_places(
    frame: Frame,
    psf: PsfTable,
    light: NDArray[np.float32],
    targets: Targets,
    *,
    threads: int = 1,
) -> Photometry:
    """Measure targets on an image ``light``, the model of each put back while it is measured."""
    from skysub.measurement import child_kernels

    y, x = targets.y, targets.x
    radii = np.array(APERTURES)
    sums, spread = _apertures(frame, light, y, x, radii, threads)
    shapes, kron, psf_sums = _children(frame, psf, light, targets, radii, sums, deep=True, threads=threads)
    ring = np.empty((len(y), 3))

    def rings(part: range) -> None:
        chosen = slice(part.start, part.stop)
        inner, outer = (r * psf.sigma for r in _RING)
        child_kernels.ring_levels(
            light, frame.state, y[chosen], x[chosen], inner, outer, _RING_CLIP, _RING_PASSES, ring[chosen]
        )

    in_threads(rings, len(y), threads)
    ny, nx = frame.shape
    near = np.minimum(np.minimum(y + 0.5, ny - 0.5 - y), np.minimum(x + 0.5, nx - 0.5 - x))
    return Photometry(
        apertures=sums,
        aperture_errors=np.sqrt(np.maximum(spread, 0)),
        truncated=near[:, None] < radii[None, :],
        shapes=shapes,
        kron=kron,
        psf=psf_sums,
        ring=ring,
    )


def shapes_at(
    frame: Frame, psf: PsfTable, light: NDArray[np.float32], targets: Targets, *, threads: int = 1
) -> NDArray[np.float64]:
    """Shapes alone, as `measure_places` finds them."""
    nothing = np.empty(0)
    sums = np.zeros((len(targets.y), 0))
    return _children(frame, psf, light, targets, nothing, sums, deep=False, threads=threads)[0]


def _apertures(  # noqa: PLR0917
    frame: Frame,
    light: NDArray[np.float32],
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    radii: NDArray[np.float64],
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of light and of variance over discs, (n, radii) each."""
    from skysub.measurement import photometry_kernels as kernels

    sums, spread = np.zeros((2, len(y), len(radii)))
    ny, nx = frame.shape
    by_row = np.argsort(y, kind="stable")
    reach = int(np.ceil(radii[-1])) + 1
    rows = np.clip(np.rint(y[by_row]), 0, ny - 1)

    def band(numbers: range) -> None:
        for number in numbers:
            low, high = np.searchsorted(rows, [number * _BAND, (number + 1) * _BAND])
            if low == high:
                continue
            chosen = by_row[low:high]
            first = max(0, int(rows[low]) - reach)
            last = min(ny, int(rows[high - 1]) + reach + 1)
            running = np.empty((last - first, nx + 1))
            for image, out in ((light, sums), (frame.variance, spread)):
                kernels.running_sums(image, first, running)
                part = np.zeros((len(chosen), len(radii)))
                kernels.aperture_sums(running, first, y[chosen], x[chosen], radii, part)
                out[chosen] = part

    in_threads(band, -(-ny // _BAND), threads)
    return sums, spread


def _children(  # noqa: PLR0917
    frame: Frame,
    psf: PsfTable,
    light: NDArray[np.float32],
    targets: Targets,
    radii: NDArray[np.float64],
    sums: NDArray[np.float64],
    *,
    deep: bool,
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    from skysub.measurement import child_kernels as kernels

    y, x, n = targets.y, targets.x, len(targets.y)
    shapes, kron, psf_sums = (
        np.full((n, m), np.nan) for m in (kernels.SHAPE, kernels.KRON, kernels.PSF_SUMS)
    )
    templates = targets.templates
    halves = np.full(n, min(psf.half, int(np.ceil(_CUT * psf.sigma))))
    extended = targets.template >= 0
    halves[extended] = np.maximum(psf.half, templates.halves[targets.template[extended]])
    moments = np.ascontiguousarray(np.array([psf.values_at(m, y, x) for m in psf.moments]).T)
    tiles = Tiles.of(y, x, psf, frame.shape)
    tiles.each_row(
        lambda rows: kernels.measure_children(
            psf.table,
            moments,
            tiles.nodes_y,
            tiles.nodes_x,
            tiles.starts,
            tiles.order,
            rows,
            y,
            x,
            targets.flux,
            targets.template,
            templates.shapes,
            templates.factors,
            halves,
            light,
            frame.image,
            frame.variance,
            frame.state,
            radii,
            psf.sigma**2,
            _ITERATIONS,
            deep,
            sums,
            shapes,
            kron,
            psf_sums,
        ),
        threads,
    )
    return shapes, kron, psf_sums
