"""Compiled detection: the residual smoothed row by row, and a bit for every pixel that stands out.

Rows are worked on while they are in cache. Smoothed rows are kept by strips of `STRIP` columns, each a flat
array: offsets into it are constants, which is what lets compilers turn the loops into vector code. What
is found of a pixel depends neither on the strip nor on the band of rows it is worked on with.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.background.fma import fma

TAPS = 6
"""Half-width of the smoothing kernel of `mark_significant`, pixel."""
STRIP = 512
"""Columns of a strip, a multiple of the 64 bits of a word."""
GROUP = 4
"""Rows that are smoothed along columns together."""
DEPTH = 24
"""Rows of a strip between moves of its last ones to its top, a multiple of `GROUP`."""
FEW, MANY = 7, 13
"""Coefficients along a row that are evaluated unrolled: models of order 6, and of order 12."""

_compiled = njit(nogil=True, cache=True)
_inner = njit(nogil=True)

_PACK = np.uint64(0x0102040810204080)
"""Multiplied by a word of eight bytes of 0 or 1, its top byte has their bits."""
_TOP_BYTE = np.uint64(56)


@_inner
def row_coefficients(monomials, y, ny, out):
    """Coefficients of u^p along row ``y`` of ny, into float32 ``out``, from those [q, p] of v^q u^p."""
    order = monomials.shape[0] - 1
    v = (2.0 * y - ny + 1) / ny
    out[:] = 0
    for p in range(order + 1):
        t = monomials[order, p]
        for q in range(order - 1, -1, -1):
            t = fma(t, v, monomials[q, p])
        out[p] = t


@_inner
def room_for_coefficients(monomials):
    """Array for `row_coefficients`: as long as the next unrolled evaluation, or as the model."""
    n = monomials.shape[0]
    return np.zeros(FEW if n <= FEW else max(n, MANY), np.float32)


@_inner
def model_row(c, out):
    """Values along a row of the polynomial with coefficients ``c`` of u^p."""
    n = len(out)
    step, first = np.float32(2.0 / n), np.float32((1.0 - n) / n)
    if len(c) > MANY:
        out[:] = c[-1]
        for p in range(len(c) - 2, -1, -1):
            for x in range(n):
                out[x] = fma(out[x], fma(np.float32(np.int32(x)), step, first), c[p])
        return
    c0, c1, c2, c3, c4, c5, c6 = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
    if len(c) == FEW:
        for x in range(n):
            u = fma(np.float32(np.int32(x)), step, first)
            out[x] = fma(fma(fma(fma(fma(fma(c6, u, c5), u, c4), u, c3), u, c2), u, c1), u, c0)
        return
    c7, c8, c9, c10, c11, c12 = c[7], c[8], c[9], c[10], c[11], c[12]
    for x in range(n):
        u = fma(np.float32(np.int32(x)), step, first)
        t = fma(fma(fma(fma(fma(fma(c12, u, c11), u, c10), u, c9), u, c8), u, c7), u, c6)
        out[x] = fma(fma(fma(fma(fma(fma(t, u, c5), u, c4), u, c3), u, c2), u, c1), u, c0)


@_inner
def residual_row(pixels, flag, ignored, c, out):
    """Image - model along a row, 0 where a pixel has a bit of ``ignored`` or is not finite."""
    n = len(out)
    zero, most = np.float32(0), np.float32(1e30)
    if len(c) == FEW:
        # the usual order, as in `model_row`, without a row of models in between
        step, first = np.float32(2.0 / n), np.float32((1.0 - n) / n)
        c0, c1, c2, c3, c4, c5, c6 = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
        for x in range(n):
            u = fma(np.float32(np.int32(x)), step, first)
            r = pixels[x] - fma(fma(fma(fma(fma(fma(c6, u, c5), u, c4), u, c3), u, c2), u, c1), u, c0)
            good = ((flag[x] & ignored) == 0) & (abs(r) <= most)
            out[x] = r if good else zero
        return
    model_row(c, out)
    for x in range(n):
        r = pixels[x] - out[x]
        good = ((flag[x] & ignored) == 0) & (abs(r) <= most)
        out[x] = r if good else zero


@_inner
def _smooth_strip(r, k, out):
    """Smooth a row of a strip; ``r`` starts `TAPS` columns before it. ``k`` is the kernel, centre first."""
    k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    for x in range(STRIP):
        a = fma(k1, r[x + 5] + r[x + 7], k0 * r[x + 6])
        a = fma(k3, r[x + 3] + r[x + 9], fma(k2, r[x + 4] + r[x + 8], a))
        out[x] = fma(k6, r[x] + r[x + 12], fma(k5, r[x + 1] + r[x + 11], fma(k4, r[x + 2] + r[x + 10], a)))


@_inner
def _mark_strip(h, k, scale, low, high, marks):
    """Smooth four rows of a strip along its columns; 1 in ``marks`` where they reach low, and where high.

    ``h`` starts `TAPS` rows before them; ``scale`` (4 rows) is one over the noise.
    """
    k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    w = STRIP
    for x in range(STRIP):
        # sixteen rows are read once for four sums
        h0, h1, h2, h3 = h[x], h[w + x], h[2 * w + x], h[3 * w + x]
        h4, h5, h6, h7 = h[4 * w + x], h[5 * w + x], h[6 * w + x], h[7 * w + x]
        h8, h9, h10, h11 = h[8 * w + x], h[9 * w + x], h[10 * w + x], h[11 * w + x]
        h12, h13, h14, h15 = h[12 * w + x], h[13 * w + x], h[14 * w + x], h[15 * w + x]
        a = fma(k3, h3 + h9, fma(k2, h4 + h8, fma(k1, h5 + h7, k0 * h6)))
        a = fma(k6, h0 + h12, fma(k5, h1 + h11, fma(k4, h2 + h10, a))) * scale[x]
        b = fma(k3, h4 + h10, fma(k2, h5 + h9, fma(k1, h6 + h8, k0 * h7)))
        b = fma(k6, h1 + h13, fma(k5, h2 + h12, fma(k4, h3 + h11, b))) * scale[w + x]
        c = fma(k3, h5 + h11, fma(k2, h6 + h10, fma(k1, h7 + h9, k0 * h8)))
        c = fma(k6, h2 + h14, fma(k5, h3 + h13, fma(k4, h4 + h12, c))) * scale[2 * w + x]
        d = fma(k3, h6 + h12, fma(k2, h7 + h11, fma(k1, h8 + h10, k0 * h9)))
        d = fma(k6, h3 + h15, fma(k5, h4 + h14, fma(k4, h5 + h13, d))) * scale[3 * w + x]
        marks[x], marks[w + x], marks[2 * w + x], marks[3 * w + x] = a >= low, b >= low, c >= low, d >= low
        marks[4 * w + x], marks[5 * w + x] = a >= high, b >= high
        marks[6 * w + x], marks[7 * w + x] = c >= high, d >= high


@_inner
def _copy(values, out):
    for i in range(len(out)):
        out[i] = values[i]


@_inner
def _pack(marks, out):
    """Bits of words of eight marks into bytes."""
    for i in range(len(out)):
        out[i] = np.uint8((marks[i] * _PACK) >> _TOP_BYTE)


@_compiled
def mark_significant(
    image, flags, monomials, k, per_noise, y_edges, x_edges, low, high, start, stop, low_bits, high_bits
):
    """Set a bit where smoothed light of rows start to stop reaches ``low`` and ``high`` times its noise.

    ``monomials`` are the model's coefficients; ``k`` (7,) float32 the symmetric kernel, centre first;
    ``per_noise`` (gy, gx) one over the noise of the smoothed image in each superpixel. ``low_bits`` and
    ``high_bits`` are uint8 (ny, bytes), pixel 8 i + j being bit j of byte i; rows have whole strips.
    """
    ny, nx = image.shape
    strips = low_bits.shape[1] * 8 // STRIP
    low, high = np.float32(low), np.float32(high)
    c = room_for_coefficients(monomials)
    ignored = np.uint8(1)
    residual = np.zeros(strips * STRIP + 2 * TAPS, np.float32)
    rows = np.zeros((strips, (DEPTH + 2 * TAPS) * STRIP), np.float32)
    scale = np.zeros((strips, GROUP * STRIP), np.float32)
    scaled_by = np.empty((strips, GROUP), np.int64)
    scaled_by[:] = -1
    superpixel = np.empty(ny, np.int64)
    for j in range(len(y_edges) - 1):
        superpixel[y_edges[j] : y_edges[j + 1]] = j
    marks = np.zeros(2 * GROUP * STRIP, np.uint8)
    words = marks.view(np.uint64)
    each = STRIP // 8
    for top in range(start, stop, DEPTH):
        kept = 0
        if top > start:
            kept = 2 * TAPS
            for s in range(strips):
                _copy(rows[s, DEPTH * STRIP :], rows[s, : kept * STRIP])
        for t in range(kept, DEPTH + 2 * TAPS):
            y = top - TAPS + t
            if 0 <= y < min(ny, stop + TAPS):
                row_coefficients(monomials, y, ny, c)
                residual_row(image[y], flags[y], ignored, c, residual[TAPS : TAPS + nx])
                for s in range(strips):
                    padded = residual[s * STRIP : (s + 1) * STRIP + 2 * TAPS]
                    _smooth_strip(padded, k, rows[s, t * STRIP : (t + 1) * STRIP])
            else:
                for s in range(strips):
                    rows[s, t * STRIP : (t + 1) * STRIP] = 0
        for s in range(strips):
            for y in range(top, min(top + DEPTH, stop), GROUP):
                for g in range(min(GROUP, stop - y)):
                    j = superpixel[y + g]
                    if j != scaled_by[s, g]:
                        scaled_by[s, g] = j
                        _spread(per_noise[j], x_edges, s, scale[s, g * STRIP : (g + 1) * STRIP])
                at = (y - top) * STRIP
                _mark_strip(rows[s, at : at + (GROUP + 2 * TAPS) * STRIP], k, scale[s], low, high, marks)
                for g in range(min(GROUP, stop - y)):
                    _pack(words[g * each : (g + 1) * each], low_bits[y + g, s * each : (s + 1) * each])
                    h = g + GROUP
                    _pack(words[h * each : (h + 1) * each], high_bits[y + g, s * each : (s + 1) * each])


@_inner
def _spread(values, x_edges, s, out):
    """Values of superpixels over the columns of strip ``s``; 0 past the image."""
    out[:] = 0
    for i in range(len(values)):
        out[max(0, x_edges[i] - s * STRIP) : max(0, min(STRIP, x_edges[i + 1] - s * STRIP))] = values[i]
