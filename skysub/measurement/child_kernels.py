"""Compiled measurements of each source on a cut-out of its own: the residual with its model put back."""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.measurement.photometry_kernels import _disc, shape_of_child
from skysub.measurement.psf_kernels import blend, profile

__all__ = ["measure_stars"]

SHAPE = 8
"""Columns of `shape_of_child`."""

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")


@_compiled
def measure_stars(
    table,
    nodes_y,
    nodes_x,
    starts,
    order,
    rows,
    y,
    x,
    flux,
    residual,
    radii,
    sigma2,
    iterations,
    sums,
    shapes,
):
    """Shape of each star's cut-out, and the aperture sums of its own model.

    ``sums`` (n, radii) gets the model's sums added, ``shapes`` (n, `SHAPE`) is written.
    """
    ny, nx = residual.shape
    size, width = table.shape[4:]
    half = size // 2
    stamps = np.empty(table.shape[2:], np.float32)
    out = np.empty((size, width), np.float32)
    child = np.empty((size, size))
    running = np.empty((size, size + 1))
    spare = np.empty((2, 8))
    columns = len(nodes_x)
    for ty in rows:
        for tx in range(columns):
            k = ty * columns + tx
            if starts[k] == starts[k + 1]:
                continue
            blend(table, nodes_y[ty], nodes_x[tx], stamps)
            for m in range(starts[k], starts[k + 1]):
                n = order[m]
                cy, cx = int(np.rint(y[n])), int(np.rint(x[n]))
                dy, dx = y[n] - cy, x[n] - cx
                profile(stamps, dy, dx, half, spare, out)
                f = flux[n]
                for j in range(size):
                    jj = cy - half + j
                    total = 0.0
                    running[j, 0] = 0.0
                    for i in range(size):
                        own = f * out[j, i]
                        total += own
                        running[j, i + 1] = total
                        ii = cx - half + i
                        if 0 <= jj < ny and 0 <= ii < nx:
                            child[j, i] = own + residual[jj, ii]
                        else:
                            child[j, i] = 0.0
                for r in range(len(radii)):
                    sums[n, r] += _disc(running, half + dy, half + dx, radii[r])
                shape_of_child(child, half + dy, half + dx, sigma2, iterations, 2.0, shapes[n])
                shapes[n, 0] += cy - half
                shapes[n, 1] += cx - half
