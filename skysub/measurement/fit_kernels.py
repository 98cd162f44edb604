"""Compiled joint fit of stars: their light painted, and the residual projected on their profiles.

Sources are worked on tile by tile, in a fixed order: a tile's PSF is blended once for all of its sources.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.background.fma import fma
from skysub.measurement.psf_kernels import blend, profile, profile_and_slopes

__all__ = ["paint_stars", "project"]

SUMS = 12
"""Columns that `project` writes."""

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")


@_compiled
def paint_stars(table, nodes_y, nodes_x, starts, order, rows, y, x, flux, radius, image):
    """Add flux times the PSF of each star to the image, for the tiles of some rows of tiles.

    Parameters
    ----------
    table
        Of `PsfTable`.
    nodes_y, nodes_x
        (ty,), (tx,): fractional node in the middle of each row and column of tiles.
    starts, order
        (ty * tx + 1,) and (n,): sources of tile k are order[starts[k] : starts[k + 1]].
    rows
        Rows of tiles to paint.
    radius
        (n,) int: how far each star is painted; negative for sources that are no stars.
    """
    ny, nx = image.shape
    size, width = table.shape[4:]
    half = size // 2
    stamps = np.empty(table.shape[2:], np.float32)
    out = np.empty((size, width), np.float32)
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
                r = radius[n]
                if r < 0 or flux[n] == 0:
                    continue
                cy, cx = int(np.rint(y[n])), int(np.rint(x[n]))
                profile(stamps, y[n] - cy, x[n] - cx, r, spare, out)
                f = np.float32(flux[n])
                a, b = max(0, cx - r), min(nx, cx + r + 1)
                if b <= a:
                    continue
                shift = half - cx
                for j in range(max(0, cy - r), min(ny, cy + r + 1)):
                    p = out[j - cy + r, a + shift : b + shift]
                    row = image[j, a:b]
                    for i in range(b - a):
                        row[i] = fma(f, p[i], row[i])


@_compiled
def project(table, nodes_y, nodes_x, starts, order, rows, y, x, radius, residual, variance, state, out):
    """Sums over each star's stamp, good pixels alone, to out (n, `SUMS`).

    With P the profile, Y and X its derivatives by the centre, r the residual and V the variance: P r, Y r,
    X r, P P, P Y, P X, Y Y, Y X, X X, P P V, P r^2 / V, and P over good pixels.
    """
    ny, nx = residual.shape
    size, width = table.shape[4:]
    half = size // 2
    stamps = np.empty(table.shape[2:], np.float32)
    o, by_y, by_x = (
        np.empty((size, width), np.float32),
        np.empty((size, width), np.float32),
        np.empty((size, width), np.float32),
    )
    spare = np.empty((2, 8))
    acc = np.empty((SUMS, width), np.float32)
    columns = len(nodes_x)
    zero = np.float32(0)
    for ty in rows:
        for tx in range(columns):
            k = ty * columns + tx
            if starts[k] == starts[k + 1]:
                continue
            blend(table, nodes_y[ty], nodes_x[tx], stamps)
            for m in range(starts[k], starts[k + 1]):
                n = order[m]
                r = radius[n]
                out[n] = 0.0
                if r < 0:
                    continue
                cy, cx = int(np.rint(y[n])), int(np.rint(x[n]))
                profile_and_slopes(stamps, y[n] - cy, x[n] - cx, r, spare, o, by_y, by_x)
                a, b = max(0, cx - r), min(nx, cx + r + 1)
                if b <= a:
                    continue
                shift = half - cx
                acc[:] = zero
                for j in range(max(0, cy - r), min(ny, cy + r + 1)):
                    jj = j - cy + r
                    _add_row(
                        o[jj, a + shift : b + shift],
                        by_y[jj, a + shift : b + shift],
                        by_x[jj, a + shift : b + shift],
                        residual[j, a:b],
                        variance[j, a:b],
                        state[j, a:b],
                        acc,
                    )
                for s in range(SUMS):
                    total = 0.0
                    for i in range(b - a):
                        total += acc[s, i]
                    out[n, s] = total


@_inner
def _add_row(p, py, px, r, v, s, acc):
    a0, a1, a2, a3, a4, a5 = acc[0], acc[1], acc[2], acc[3], acc[4], acc[5]
    a6, a7, a8, a9, a10, a11 = acc[6], acc[7], acc[8], acc[9], acc[10], acc[11]
    one, zero = np.float32(1), np.float32(0)
    for i in range(len(p)):
        g = one if s[i] == 0 else zero
        q, qy, qx, z = g * p[i], g * py[i], g * px[i], r[i]
        a0[i] = fma(q, z, a0[i])
        a1[i] = fma(qy, z, a1[i])
        a2[i] = fma(qx, z, a2[i])
        a3[i] = fma(q, q, a3[i])
        a4[i] = fma(q, qy, a4[i])
        a5[i] = fma(q, qx, a5[i])
        a6[i] = fma(qy, qy, a6[i])
        a7[i] = fma(qy, qx, a7[i])
        a8[i] = fma(qx, qx, a8[i])
        a9[i] = fma(q * q, v[i], a9[i])
        a10[i] = fma(q * z, z / v[i], a10[i])
        a11[i] += q
