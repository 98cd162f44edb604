"""Compiled measurements of each source on a cut-out of its own: the residual with its model put back."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from skysub.measurement.extended_kernels import evaluate_template
from skysub.measurement.photometry_kernels import disc_integral, shape_of_child
from skysub.measurement.psf_kernels import blend, profile

__all__ = ["measure_children", "moments_of_large", "ring_levels"]

SHAPE = 8
"""Columns of `shape_of_child`."""
KRON = 4
"""Flux, its variance, first moment of the radius, and the source's share of the light under its weight."""
PSF_SUMS = 8
"""P c, P P, P P V, P r^2 / V, P over good pixels, and the variance of y and x of the model as a whole."""
_BINS = 256
_PER_BIN = 2.0
"""Bins of elliptical radius, per pixel."""
_OUT = 6.0
"""The first moment goes out to this many sigma of the source."""
_KRON = 3.2
"""Radius of the Kron aperture in units of the first moment."""
_FAR2 = 25.0

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")


@_inner
def _kron(child, own, variance, y, x, shape, pxx, pxy, pyy, whole, bins, out):
    """Flux in the ellipse of `_KRON` times the first moment of the model's own light; y, x of the cut-out.

    The moment is that of the ``whole`` cut-out or goes out to `_OUT`.
    """
    xx, xy, yy = pxx, pxy, pyy
    if shape[7] > 0 and shape[2] * shape[4] - shape[3] * shape[3] > pxx * pyy - pxy * pxy:
        xx, xy, yy = shape[2], shape[3], shape[4]
    det = xx * yy - xy * xy
    out[0], out[1], out[2] = np.nan, np.nan, np.nan
    if not det > 0:
        return
    sigma = math.sqrt(math.sqrt(det))
    a, b, c = yy / det * sigma * sigma, -xy / det * sigma * sigma, xx / det * sigma * sigma
    bins[:] = 0.0
    rows, columns = child.shape
    for j in range(rows):
        dy = j - y
        for i in range(columns):
            dx = i - x
            r = math.sqrt(max(a * dx * dx + 2 * b * dx * dy + c * dy * dy, 0.0))
            k = int(r * _PER_BIN)
            if k < _BINS:
                bins[k, 0] += child[j, i]
                bins[k, 1] += variance[j, i]
                bins[k, 2] += own[j, i]
                bins[k, 3] += own[j, i] * r
    light, moment = 0.0, 0.0
    for k in range(_BINS if whole else min(_BINS, int(_OUT * sigma * _PER_BIN) + 1)):
        light += bins[k, 2]
        moment += bins[k, 3]
    if not (light > 0 and moment > 0):
        return
    first = moment / light
    edge = min(_KRON * first * _PER_BIN, _BINS - 1.0)
    flux, spread = 0.0, 0.0
    for k in range(int(edge)):
        flux += bins[k, 0]
        spread += bins[k, 1]
    part = edge - int(edge)
    out[0] = flux + part * bins[int(edge), 0]
    out[1] = spread + part * bins[int(edge), 1]
    out[2] = first


@_inner
def _own_share(own, others, y, x, xx, xy, yy):
    """Share of the light under a Gaussian of the source's moments that is the source's own."""
    det = xx * yy - xy * xy
    if not det > 0:
        return np.nan
    a, b, c = yy / det, -xy / det, xx / det
    mine, theirs = 0.0, 0.0
    for j in range(own.shape[0]):
        dy = j - y
        for i in range(own.shape[1]):
            dx = i - x
            q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
            if q < _FAR2:
                w = math.exp(-0.5 * q)
                mine += w * own[j, i]
                theirs += w * max(others[j, i], 0.0)
    return mine / (mine + theirs) if mine + theirs > 0 else np.nan


@_inner
def _psf_sums(stamp, child, residual_cut, variance, good, middle, half, own, out):
    """Sums of the PSF, centred on the cut-out's middle pixel, over the cut-out."""
    out[:] = 0.0
    yy, yyv, xx, xxv = 0.0, 0.0, 0.0, 0.0
    rows = own.shape[0]
    for j in range(rows):
        sj = j - half + middle
        for i in range(rows):
            si = i - half + middle
            v = variance[j, i]
            if good[j, i] > 0 and 0 <= sj < stamp.shape[0] and 0 <= si < 2 * middle + 1:
                p = stamp[sj, si]
                out[0] += p * child[j, i]
                out[1] += p * p
                out[2] += p * p * v
                out[3] += p * residual_cut[j, i] * residual_cut[j, i] / v
                out[4] += p
            if good[j, i] > 0 and 0 < j < rows - 1 and 0 < i < rows - 1:
                dy = 0.5 * (own[j + 1, i] - own[j - 1, i])
                dx = 0.5 * (own[j, i + 1] - own[j, i - 1])
                yy += dy * dy
                yyv += dy * dy * v
                xx += dx * dx
                xxv += dx * dx * v
    out[5] = yyv / (yy * yy) if yy > 0 else np.nan
    out[6] = xxv / (xx * xx) if xx > 0 else np.nan


@_compiled
def measure_children(
    table,
    moments,
    nodes_y,
    nodes_x,
    starts,
    order,
    rows,
    y,
    x,
    flux,
    template,
    template_shapes,
    template_factors,
    halves,
    light,
    image,
    variance,
    state,
    radii,
    sigma2,
    iterations,
    deep,
    sums,
    shapes,
    kron,
    psf_sums,
):
    """Measure sources on cut-outs of ``light`` with their own models put back.

    Parameters
    ----------
    moments
        (n, 3): xx, xy, yy of the PSF at each source.
    template
        (n,): index of the source's template, or -1 for a star of flux ``flux``.
    halves
        (n,): half-width of each cut-out, pixel.
    light, image
        (ny, nx): what is left without any source, and with all.
    deep
        Whether more than the shape is asked for.
    sums, shapes, kron, psf_sums
        (n, radii), added to: sums of the model over apertures; (n, `SHAPE`), (n, `KRON`) and (n, `PSF_SUMS`),
        written.
    """
    ny, nx = light.shape
    size, width = table.shape[4:]
    middle = size // 2
    stamps = np.empty(table.shape[2:], np.float32)
    stamp = np.empty((size, width), np.float32)
    most = 2 * np.max(halves) + 1 if len(halves) else 1
    own_room, child_room, cut_room, others_room, variance_room, good_room = (
        np.zeros((most, most)),
        np.zeros((most, most)),
        np.zeros((most, most)),
        np.zeros((most, most)),
        np.zeros((most, most)),
        np.zeros((most, most)),
    )
    widest = max(most, size)
    running_room = np.zeros((widest, widest + 1))
    bins = np.empty((_BINS, 4))
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
                half = halves[n]
                edge = 2 * half + 1
                own, child, cut = own_room[:edge, :edge], child_room[:edge, :edge], cut_room[:edge, :edge]
                others, spread = others_room[:edge, :edge], variance_room[:edge, :edge]
                good = good_room[:edge, :edge]
                cy, cx = int(np.rint(y[n])), int(np.rint(x[n]))
                dy, dx = y[n] - cy, x[n] - cx
                if template[n] >= 0:
                    evaluate_template(
                        template_shapes[template[n]], template_factors[template[n]], cy, cx, half, own
                    )
                    if deep:
                        profile(stamps, dy, dx, middle, spare, stamp)
                else:
                    profile(stamps, dy, dx, middle, spare, stamp)
                    own[:] = 0.0
                    reach = min(half, middle)
                    for j in range(-reach, reach + 1):
                        for i in range(-reach, reach + 1):
                            own[half + j, half + i] = flux[n] * stamp[middle + j, middle + i]
                if len(radii):
                    # of a star the whole stamp, whatever the cut-out
                    span = edge if template[n] >= 0 else size
                    running = running_room[:span, : span + 1]
                    for j in range(span):
                        total = 0.0
                        running[j, 0] = 0.0
                        for i in range(span):
                            total += own[j, i] if template[n] >= 0 else flux[n] * stamp[j, i]
                            running[j, i + 1] = total
                    for r in range(len(radii)):
                        sums[n, r] += disc_integral(running, span // 2 + dy, span // 2 + dx, radii[r])
                for j in range(edge):
                    jj = cy - half + j
                    for i in range(edge):
                        ii = cx - half + i
                        child[j, i], good[j, i], spread[j, i], cut[j, i], others[j, i] = (
                            0.0,
                            0.0,
                            0.0,
                            0.0,
                            0.0,
                        )
                        if 0 <= jj < ny and 0 <= ii < nx:
                            cut[j, i] = light[jj, ii]
                            child[j, i] = own[j, i] + light[jj, ii]
                            good[j, i] = 1.0 if state[jj, ii] == 0 else 0.0
                            spread[j, i] = variance[jj, ii]
                            if good[j, i] > 0:
                                others[j, i] = image[jj, ii] - child[j, i]
                shape = shapes[n]
                start = sigma2
                if template[n] >= 0:
                    start = sigma2 * 1.5
                shape_of_child(child, half + dy, half + dx, start, iterations, 2.0, shape)
                if deep:
                    pxx, pxy, pyy = moments[n, 0], moments[n, 1], moments[n, 2]
                    _kron(
                        child,
                        own,
                        spread,
                        half + dy,
                        half + dx,
                        shape,
                        pxx,
                        pxy,
                        pyy,
                        template[n] >= 0,
                        bins,
                        kron[n],
                    )
                    if shape[7] > 0:
                        pxx, pxy, pyy = shape[2], shape[3], shape[4]
                    kron[n, 3] = _own_share(own, others, half + dy, half + dx, pxx, pxy, pyy)
                    _psf_sums(stamp, child, cut, spread, good, middle, half, own, psf_sums[n])
                shape[0] += cy - half
                shape[1] += cx - half


@_compiled
def ring_levels(light, state, y, x, inner, outer, clip, passes, out):
    """Clipped mean of the light in a ring about each place, its scatter, and the pixels kept: out (n, 3)."""
    ny, nx = light.shape
    reach = int(outer) + 1
    values = np.empty((2 * reach + 1) * (reach + 1))
    low2, high2 = inner * inner, outer * outer
    for n in range(len(y)):
        cy, cx = int(np.rint(y[n])), int(np.rint(x[n]))
        count = 0
        # every other pixel, like the fields of a chessboard
        for j in range(max(0, cy - reach), min(ny, cy + reach + 1)):
            first = max(0, cx - reach)
            for i in range(first + ((first + j) & 1), min(nx, cx + reach + 1), 2):
                d = (j - cy) ** 2 + (i - cx) ** 2
                if low2 <= d <= high2 and state[j, i] == 0:
                    values[count] = light[j, i]
                    count += 1
        mean, deviation, kept = 0.0, np.inf, 0
        for _ in range(passes + 1):
            total, square, kept = 0.0, 0.0, 0
            low, high = mean - clip * deviation, mean + clip * deviation
            for k in range(count):
                v = values[k]
                if low <= v <= high or deviation == np.inf:
                    total += v
                    square += v * v
                    kept += 1
            if kept < 2:
                break
            mean = total / kept
            deviation = math.sqrt(max(square / kept - mean * mean, 0.0))
        out[n, 0] = mean if kept > 1 else np.nan
        out[n, 1] = deviation if kept > 1 else np.nan
        out[n, 2] = kept


@_compiled
def moments_of_large(light, y, x, half, start, out):
    """Adaptive moments about places on an image, in windows of 2 half + 1 pixels, to out (n, `SHAPE`)."""
    ny, nx = light.shape
    child = np.empty((2 * half + 1, 2 * half + 1))
    for n in range(len(y)):
        cy, cx = int(np.rint(y[n])), int(np.rint(x[n]))
        for j in range(2 * half + 1):
            for i in range(2 * half + 1):
                jj, ii = cy - half + j, cx - half + i
                child[j, i] = light[jj, ii] if 0 <= jj < ny and 0 <= ii < nx else 0.0
        shape_of_child(child, half + y[n] - cy, half + x[n] - cx, start, 30, 10.0, out[n])
        out[n, 0] += cy - half
        out[n, 1] += cx - half
