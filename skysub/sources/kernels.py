"""Compiled passes over the pixels of an image and its flags: from mask planes, counts, noise, sharp light.

All take native float32 images (ny, nx) and a plane of uint8 flags of the same shape, whose bits
`skysub.sources.flags` names. They release the GIL, and their results do not depend on how rows are
shared among threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def flag_pixels(mask, ignored, saturated, flags):
    """Flags: 1 where a bit of ``ignored`` is set, 2 where one of ``saturated`` is."""
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            m = mask[y, x]
            flags[y, x] = np.uint8((m & ignored) != 0) | (np.uint8((m & saturated) != 0) << np.uint8(1))


@njit(nogil=True, cache=True)
def count_flagged(flags, bits, y_edges, x_edges, out):
    """Pixels of each superpixel that have any of ``bits[k]``, uint8, into ``out[k]`` (gy, gx) int64."""
    columns = np.empty((len(bits), flags.shape[1]), np.uint8)
    most = 255
    out[:] = 0
    for j in range(len(y_edges) - 1):
        for top in range(y_edges[j], y_edges[j + 1], most):
            columns[:] = 0
            for y in range(top, min(top + most, y_edges[j + 1])):
                for k in range(len(bits)):
                    _count_row(flags[y], bits[k], columns[k])
            for k in range(len(bits)):
                for i in range(len(x_edges) - 1):
                    n = 0
                    for x in range(x_edges[i], x_edges[i + 1]):
                        n += columns[k, x]
                    out[k, j, i] += n


@njit(nogil=True)
def _count_row(flag, bits, columns):
    for x in range(len(columns)):
        columns[x] += np.uint8((flag[x] & bits) != 0)


@njit(nogil=True, cache=True)
def pixel_noise(image, flags, ignored, y_edges, x_edges, rows, pairs, quantile, out):
    """Quantile of |difference of neighbouring pixels| in each superpixel.

    The sample is ``pairs`` neighbours in each of ``rows`` rows, at columns that shift from row to row so that
    one star does not fill it. NaN where fewer than 16 pairs are good.
    """
    ignored = np.uint8(ignored)
    values = np.empty(rows * pairs, np.float32)
    for j in range(len(y_edges) - 1):
        height = y_edges[j + 1] - y_edges[j]
        for i in range(len(x_edges) - 1):
            a, width = x_edges[i], x_edges[i + 1] - x_edges[i]
            room = max(0, width - 2 * pairs)
            n = 0
            for t in range(min(rows, height)):
                y = y_edges[j] + t * height // min(rows, height)
                first = a + (t * 37) % (room + 1)
                for x in range(first, min(first + 2 * pairs, a + width) - 1, 2):
                    d = abs(image[y, x + 1] - image[y, x])
                    if ((flags[y, x] | flags[y, x + 1]) & ignored) == 0 and np.isfinite(d):
                        values[n] = d
                        n += 1
            out[j, i] = np.nan
            if n >= 16:
                out[j, i] = _quantile(values[:n], quantile)


@njit(nogil=True)
def _quantile(values, quantile):
    """Quantile of absolute differences, which are reordered; whole-number ones count as spread evenly.

    Of values that are alike, as those of whole-number pixels are, each stands for all within half of the step
    to its neighbours, 0 for those up to half a step.
    """
    n = len(values)
    at = quantile * (n - 1)
    k = int(at)
    _select(values, k)
    value, following = values[k], np.float32(np.inf)
    below, alike = 0, 0
    for t in range(n):
        if values[t] < value:
            below += 1
        elif values[t] == value:
            alike += 1
        else:
            following = min(following, values[t])
    if alike > 1 and np.isfinite(following):
        step = following - value
        share = (at + 0.5 - below) / alike
        if value == 0:
            return np.float32(0.5) * step * share
        return value + step * (share - 0.5)
    if k + 1 < n and k + 1 >= below + alike:
        return value + (at - k) * (following - value)
    return value


@njit(nogil=True)
def _select(values, k):
    """Put the k-th smallest value in its place, smaller ones before it and larger ones behind (Hoare)."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot = values[k]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if j < k:
            low = i
        if k < i:
            high = j


@njit(nogil=True, cache=True)
def sharp_blocks(image, model, flags, unusable, noise, threshold, contrast, size, first, blocks):
    """Mark blocks, (by, bx) bool, with a pixel that stands out of its four neighbours' mean.

    It does by more than ``threshold`` of the noise per pixel and more than ``contrast`` of its own light, and
    has none of the flags ``unusable``. ``first`` is the row of the blocks' image that the first row given is;
    the outermost rows and columns are not judged.
    """
    ny, nx = image.shape
    above = np.zeros(nx, np.float32)
    here = np.zeros(nx, np.float32)
    below = np.zeros(nx, np.float32)
    least = np.float32(threshold * noise)
    contrast = np.float32(contrast)
    quarter = np.float32(0.25)
    unusable = np.uint8(unusable)
    for x in range(nx):
        here[x] = image[0, x] - model[0, x]
    if ny > 1:
        for x in range(nx):
            below[x] = image[1, x] - model[1, x]
    for y in range(1, ny - 1):
        above, here, below = here, below, above
        for x in range(nx):
            below[x] = image[y + 1, x] - model[y + 1, x]
        for x in range(1, nx - 1):
            r = here[x]
            if r > least:
                out = r - quarter * (here[x - 1] + here[x + 1] + above[x] + below[x])
                if out > least and out > contrast * r and not flags[y, x] & unusable:
                    blocks[(first + y) // size, x // size] = True
