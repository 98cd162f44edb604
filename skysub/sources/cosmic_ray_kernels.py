"""L.A.Cosmic (van Dokkum 2001, PASP 113, 1420) on one square block of pixels at a time, compiled.

The steps are those of the paper with three changes that are usual: medians are separable, noise comes from
a filtered variance, and the fine structure is what the PSF finds beyond its surroundings. Medians run over
whole rows as vector code; the fine structure is worked out where a pixel is a candidate alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["PLANES", "REACH_OF_FILTERS", "search_block"]

PLANES = 7
"""Planes of a block's size that `search_block` needs as scratch."""
REACH_OF_FILTERS = 7
"""Pixels at a block's edge that cannot be judged: 3 of the PSF, and 4 of the median of what it finds."""
_PSF = 3
_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")
_inlined = njit(nogil=True, inline="always")


@_compiled
def search_block(
    image,
    level,
    flags,
    unusable,
    top,
    left,
    noise,
    psf,
    sigma,
    low,
    contrast,
    iterations,
    planes,
    hits,
    light,
):
    """Pixels of a block that cosmic rays hit, and its light without them.

    Parameters
    ----------
    image, flags
        (ny, nx) float32 and uint8: of the detector; pixels with a bit of ``unusable`` are not judged.
    level
        (e, e) float32: sky of the block, whose first pixel is (top, left) of the detector. What lies outside
        of the detector has the light of the nearest pixel, and is not judged.
    noise
        Per pixel of the sky; light beyond it adds its own number to the variance.
    psf
        (7, 7) float32, sum 1.
    sigma, low, contrast
        Threshold in units of the noise, that for neighbours, and how much sharper than the PSF a hit is.
    planes
        (PLANES, e, e) float32, scratch.
    hits
        (e, e) uint8, written: 1 where a pixel was hit, 2 where it is not judged.
    light
        (e, e) float32, written: image - level in units of the noise, hits replaced by the median of what is
        good among the 5 x 5 pixels around them.

    Returns
    -------
    count
        Of pixels hit.
    """
    edge = len(level)
    ny, nx = image.shape
    variance, s, smooth, spare = planes[0], planes[1], planes[2], planes[3]
    scale = np.float32(1 / noise)
    for j in range(edge):
        y = min(max(top + j, 0), ny - 1)
        for i in range(edge):
            x = min(max(left + i, 0), nx - 1)
            v = (image[y, x] - level[j, i]) * scale
            bad = (flags[y, x] & unusable) != 0 or not abs(v) < np.float32(1e30)
            light[j, i] = np.float32(0) if bad else v
            variance[j, i] = np.float32(1) + max(light[j, i], np.float32(0)) * scale
            outside = y != top + j or x != left + i
            hits[j, i] = 3 if bad else (2 if outside else 0)
    _spread_unjudged(hits)
    count = 0
    for _ in range(iterations):
        _median_filter(variance, spare, planes[4])
        noises = planes[4]
        for j in range(edge):
            for i in range(edge):
                noises[j, i] = np.sqrt(noises[j, i])
        _sharpness(light, noises, s)
        _median_filter(s, spare, smooth)
        for j in range(edge):
            for i in range(edge):
                s[j, i] -= smooth[j, i]
        found = _judge(s, light, noises, psf, sigma, low, contrast, hits, planes[5], planes[6])
        count += found
        if not found:
            break
        _replace(light, hits)
        _replace(variance, hits)
    return count


@_inner
def _spread_unjudged(hits):
    """What touches a pixel that says nothing is not judged either: 3 becomes 2 with its neighbours."""
    edge = len(hits)
    for j in range(edge):
        for i in range(edge):
            if hits[j, i] == 3:
                for b in range(max(0, j - 1), min(edge, j + 2)):
                    for a in range(max(0, i - 1), min(edge, i + 2)):
                        if hits[b, a] == 0:
                            hits[b, a] = 2
    for j in range(edge):
        for i in range(edge):
            hits[j, i] = min(hits[j, i], np.uint8(2))


@_inlined
def _least(a, b):
    return min(b, a)


@_inlined
def _most(a, b):
    return max(a, b)


@_inlined
def _median7(a, b, c, d, e, f, g):
    """Median of seven: the least and the greatest of five of them cannot be it, nor those of what follows."""
    ab, ba = _least(a, b), _most(a, b)
    cd, dc = _least(c, d), _most(c, d)
    # of five
    m1, m2 = _most(ab, cd), _least(ba, dc)
    m3 = _least(_most(ba, dc), _most(_least(ab, cd), e))
    # of four
    lo, hi = _least(m1, m2), _most(m1, m2)
    ol, ih = _least(m3, f), _most(m3, f)
    p, q = _most(lo, ol), _least(hi, ih)
    return _most(_least(p, q), _least(_most(p, q), g))


@_inner
def _copy(image, out):
    """Copy row by row: NumPy's way would be compiled with all that it may have to say of shapes."""
    for j in range(len(image)):
        here, there = image[j], out[j]
        for i in range(len(here)):
            there[i] = here[i]


@_inner
def _median_filter(image, spare, out):
    """Median of seven along rows, then along columns; three pixels at the edges stay as they are."""
    edge = len(image)
    _copy(image, spare)
    for j in range(edge):
        v, row = image[j], spare[j]
        for i in range(3, edge - 3):
            row[i] = _median7(v[i - 3], v[i - 2], v[i - 1], v[i], v[i + 1], v[i + 2], v[i + 3])
    _copy(spare, out)
    for j in range(3, edge - 3):
        row = out[j]
        a, b, c, d = spare[j - 3], spare[j - 2], spare[j - 1], spare[j]
        e, f, g = spare[j + 1], spare[j + 2], spare[j + 3]
        for i in range(edge):
            row[i] = _median7(a[i], b[i], c[i], d[i], e[i], f[i], g[i])


@_inner
def _sharpness(light, noises, out):
    """Positive Laplacian of the image at twice its sampling, in units of its noise."""
    edge = len(light)
    zero, eighth = np.float32(0), np.float32(0.125)
    out[:] = zero
    for j in range(1, edge - 1):
        above, here, below, sigma, row = light[j - 1], light[j], light[j + 1], noises[j], out[j]
        for i in range(1, edge - 1):
            # one of the four subpixels: as much as twice the pixel lies above the two pixels it touches
            c = here[i] + here[i]
            la, lb = c - here[i - 1], c - here[i + 1]
            total = _most(la - above[i], zero) + _most(lb - above[i], zero)
            total += _most(la - below[i], zero) + _most(lb - below[i], zero)
            row[i] = eighth * total / sigma[i]


@_inner
def _judge(s, light, noises, psf, sigma, low, contrast, hits, matched, mark):
    """Mark new hits; returns the number of pixels that a pass found, old ones among them."""
    edge = len(s)
    first = REACH_OF_FILTERS
    any_candidate = False
    for j in range(first, edge - first):
        for i in range(first, edge - first):
            if s[j, i] > sigma and hits[j, i] != 2:
                if not any_candidate:
                    any_candidate = True
                    matched[:] = np.nan
                    mark[:] = np.float32(0)
                if s[j, i] > contrast * _fine_structure(light, noises, psf, matched, j, i):
                    mark[j, i] = np.float32(3)
    if not any_candidate:
        return 0
    # neighbours of hits first by the threshold, whatever their contrast, then by the lower one
    for turn in range(2):
        least = sigma if turn == 0 else low
        old = np.float32(3 - turn)
        for j in range(first - 2, edge - first + 2):
            for i in range(first - 2, edge - first + 2):
                if mark[j, i] == 0 and s[j, i] > least and hits[j, i] != 2:
                    near = False
                    for b in range(j - 1, j + 2):
                        for a in range(i - 1, i + 2):
                            near |= mark[b, a] >= old
                    if near:
                        mark[j, i] = old - 1
    found = 0
    for j in range(edge):
        for i in range(edge):
            if mark[j, i] > 0:
                hits[j, i] = 1
                found += 1
    return found


@_inner
def _fine_structure(light, noises, psf, matched, y, x):
    """What the PSF finds at a pixel beyond the separable median of 9, in units of the noise."""
    rows, row = np.empty(9, np.float32), np.empty(9, np.float32)
    for b in range(9):
        for a in range(9):
            j, i = y + b - 4, x + a - 4
            if np.isnan(matched[j, i]):
                total, weight = np.float32(0), np.float32(0)
                for q in range(-_PSF, _PSF + 1):
                    for p in range(-_PSF, _PSF + 1):
                        w = psf[q + _PSF, p + _PSF] / (noises[j + q, i + p] * noises[j + q, i + p])
                        total += w * light[j + q, i + p]
                        weight += w
                matched[j, i] = total / weight
            row[a] = matched[j, i]
        rows[b] = _middle(row, 9)
    return max((matched[y, x] - _middle(rows, 9)) / noises[y, x], np.float32(0.01))


@_inner
def _middle(values, n):
    """Median of the first n values, which are put in order."""
    for k in range(1, n):
        v = values[k]
        i = k
        while i > 0 and values[i - 1] > v:
            values[i] = values[i - 1]
            i -= 1
        values[i] = v
    return np.float32(0.5) * (values[(n - 1) // 2] + values[n // 2])


@_inner
def _replace(image, hits):
    """Put the median of the good among the 5 x 5 pixels around in the place of hits; 0 where none is."""
    edge = len(image)
    values = np.empty(25, np.float32)
    for j in range(2, edge - 2):
        for i in range(2, edge - 2):
            if hits[j, i] == 1:
                n = 0
                for b in range(j - 2, j + 3):
                    for a in range(i - 2, i + 3):
                        if hits[b, a] == 0:
                            values[n] = image[b, a]
                            n += 1
                image[j, i] = _middle(values, n) if n else np.float32(0)
