"""Stars of an image fit all at once: fluxes and places, with the PSF of each place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["Tiles", "paint", "paint_radius", "project"]

TILE = 256
"""Edge of the tiles whose sources share a blended PSF, pixel; more than a stamp, so that tiles two rows apart
never paint the same pixel."""
_FAINT = 0.02
"""Light per pixel, in units of the noise, below which a star is not painted."""
_LEAST = 6


@dataclass(frozen=True, eq=False)
class Tiles:
    """Sources by tile of the detector."""

    nodes_y: NDArray[np.float64]
    nodes_x: NDArray[np.float64]
    starts: NDArray[np.int64]
    order: NDArray[np.int64]

    @classmethod
    def of(
        cls, y: NDArray[np.float64], x: NDArray[np.float64], psf: PsfTable, shape: tuple[int, int]
    ) -> Tiles:
        """Sort places (n,) into tiles."""
        counts = [-(-n // TILE) for n in shape]
        ty = np.clip((y + 0.5) // TILE, 0, counts[0] - 1).astype(np.int64)
        tx = np.clip((x + 0.5) // TILE, 0, counts[1] - 1).astype(np.int64)
        number = ty * counts[1] + tx
        middles = [np.asarray((np.arange(c) + 0.5) * TILE - 0.5, np.float64) for c in counts]
        return cls(
            nodes_y=psf.node_of(middles[0], middles[0])[0],
            nodes_x=psf.node_of(middles[1], middles[1])[1],
            starts=np.searchsorted(np.sort(number), np.arange(counts[0] * counts[1] + 1)),
            order=np.argsort(number, kind="stable"),
        )

    def each_row(self, work: Callable[[NDArray[np.int64]], None], threads: int) -> None:
        """Call ``work`` on rows of tiles, even ones first, then odd ones."""
        for parity in range(2):
            rows = np.arange(parity, len(self.nodes_y), 2)
            if len(rows):
                in_threads(partial(_work_on, work, rows), len(rows), threads)


def _work_on(work: Callable[[NDArray[np.int64]], None], rows: NDArray[np.int64], part: range) -> None:
    work(rows[part.start : part.stop])


def paint(  # noqa: PLR0917
    image: NDArray[np.float32],
    tiles: Tiles,
    psf: PsfTable,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    flux: NDArray[np.float64],
    radius: NDArray[np.int64],
    *,
    threads: int = 1,
) -> None:
    """Add stars to an image, in place."""
    from skysub.measurement import fit_kernels as kernels

    tiles.each_row(
        lambda rows: kernels.paint_stars(
            psf.table,
            tiles.nodes_y,
            tiles.nodes_x,
            tiles.starts,
            tiles.order,
            rows,
            y,
            x,
            flux,
            radius,
            image,
        ),
        threads,
    )


def project(  # noqa: PLR0917
    residual: NDArray[np.float32],
    frame: Frame,
    tiles: Tiles,
    psf: PsfTable,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    radius: NDArray[np.int64],
    *,
    threads: int = 1,
) -> NDArray[np.float64]:
    """Sums of `skysub.measurement.fit_kernels.project` for stars (n,)."""
    from skysub.measurement import fit_kernels as kernels

    out = np.zeros((len(y), kernels.SUMS))
    tiles.each_row(
        lambda rows: kernels.project(
            psf.table,
            tiles.nodes_y,
            tiles.nodes_x,
            tiles.starts,
            tiles.order,
            rows,
            y,
            x,
            radius,
            residual,
            frame.variance,
            frame.state,
            out,
        ),
        threads,
    )
    return out


def paint_radius(flux: NDArray[np.float64], noise: NDArray[np.float64], psf: PsfTable) -> NDArray[np.int64]:
    """How far stars must be painted, pixel: to where what is left out is lost in the noise."""
    my, mx = psf.defined.shape
    stamp = psf.table[my // 2, mx // 2, 3, 3, :, : psf.size]
    half = psf.half
    i = np.arange(psf.size) - half
    distance = np.maximum(np.abs(i[:, None]), np.abs(i[None, :]))
    # the brightest pixel of each square ring, from outside in
    brightest = np.array([np.abs(stamp[distance == r]).max() for r in range(half + 1)], np.float64)
    outside = np.maximum.accumulate(brightest[::-1])[::-1]
    outside = np.append(outside[1:], 0.0)
    allowed = _FAINT * noise / np.maximum(np.abs(flux), 1e-30)
    radius = np.searchsorted(-outside, -allowed)
    found: NDArray[np.int64] = np.clip(radius, min(_LEAST, half), half).astype(np.int64)
    return found
