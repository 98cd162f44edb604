"""Compiled kernels of detection: smoothing with thresholds, footprints, and painting masks.

All take native float32 images (ny, nx) and a plane of uint8 flags of the same shape, whose bits
`skysub.sources.flags` names. They release the GIL, and their results do not depend on how rows are
shared among threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

TAPS = 6
"""Half-width of the smoothing kernel that `classify` has unrolled, pixel."""
HORNER = 7
"""Coefficients per row of a model of order 6 at most, which is evaluated unrolled."""


@njit(nogil=True, cache=True)
def flag_pixels(mask, ignored, saturated, flags):
    """Flags: 1 where a bit of ``ignored`` is set, 2 where one of ``saturated`` is."""
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            m = mask[y, x]
            flags[y, x] = np.uint8((m & ignored) != 0) | (np.uint8((m & saturated) != 0) << np.uint8(1))


@njit(nogil=True, cache=True)
def model_row(power, y, ny, u, out):
    """Values of a polynomial, coefficients [q, p] of v^q u^p, along row ``y`` of an image of ny rows."""
    order = power.shape[0] - 1
    v = (2.0 * y - ny + 1) / ny
    c = np.zeros(max(order + 1, HORNER), np.float32)
    for p in range(order + 1):
        t = power[order, p]
        for q in range(order - 1, -1, -1):
            t = t * v + power[q, p]
        c[p] = t
    if order < HORNER:
        c0, c1, c2, c3, c4, c5, c6 = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
        for x in range(len(u)):
            w = u[x]
            out[x] = (((((c6 * w + c5) * w + c4) * w + c3) * w + c2) * w + c1) * w + c0
    else:
        out[:] = c[order]
        for p in range(order - 1, -1, -1):
            for x in range(len(u)):
                out[x] = out[x] * u[x] + c[p]


@njit(nogil=True, cache=True)
def _residual_row(image, flags, y, power, u, out):
    """One row of image - model, 0 where a pixel is flagged as ignored or is not finite."""
    model_row(power, y, image.shape[0], u, out)
    row = image[y]
    flag = flags[y]
    zero = np.float32(0)
    for x in range(len(u)):
        r = row[x] - out[x]
        good = (flag[x] & 1) == 0 and abs(r) <= np.float32(1e30)
        out[x] = r if good else zero


@njit(nogil=True, cache=True)
def _smooth_row(r, k, pad, out):
    """Convolve one padded row with the symmetric kernel k[0] (centre) to k[-1]."""
    n = len(out)
    if len(k) == TAPS + 1:
        k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
        # shifted views of their own, in two loops, are what the compiler vectorises in every caller
        z = r[pad : pad + n]
        a1, b1 = r[pad - 1 : pad - 1 + n], r[pad + 1 : pad + 1 + n]
        a2, b2 = r[pad - 2 : pad - 2 + n], r[pad + 2 : pad + 2 + n]
        a3, b3 = r[pad - 3 : pad - 3 + n], r[pad + 3 : pad + 3 + n]
        a4, b4 = r[pad - 4 : pad - 4 + n], r[pad + 4 : pad + 4 + n]
        a5, b5 = r[pad - 5 : pad - 5 + n], r[pad + 5 : pad + 5 + n]
        a6, b6 = r[pad - 6 : pad - 6 + n], r[pad + 6 : pad + 6 + n]
        for x in range(n):
            out[x] = k0 * z[x] + k1 * (a1[x] + b1[x]) + k2 * (a2[x] + b2[x]) + k3 * (a3[x] + b3[x])
        for x in range(n):
            out[x] += k4 * (a4[x] + b4[x]) + k5 * (a5[x] + b5[x]) + k6 * (a6[x] + b6[x])
        return
    for x in range(n):
        out[x] = k[0] * r[x + pad]
    for t in range(1, len(k)):
        for x in range(n):
            out[x] += k[t] * (r[x + pad - t] + r[x + pad + t])


@njit(nogil=True, cache=True)
def _smooth_column(ring, y, k, out):
    """Convolve across the rows kept in ``ring``, row ``y`` being the centre."""
    size = ring.shape[0]
    n = len(out)
    if len(k) == TAPS + 1:
        k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
        z = ring[y % size]
        a1, b1 = ring[(y - 1) % size], ring[(y + 1) % size]
        a2, b2 = ring[(y - 2) % size], ring[(y + 2) % size]
        a3, b3 = ring[(y - 3) % size], ring[(y + 3) % size]
        a4, b4 = ring[(y - 4) % size], ring[(y + 4) % size]
        a5, b5 = ring[(y - 5) % size], ring[(y + 5) % size]
        a6, b6 = ring[(y - 6) % size], ring[(y + 6) % size]
        # two loops: a loop over more arrays than this is not vectorised
        for x in range(n):
            out[x] = k0 * z[x] + k1 * (a1[x] + b1[x]) + k2 * (a2[x] + b2[x]) + k3 * (a3[x] + b3[x])
        for x in range(n):
            out[x] += k4 * (a4[x] + b4[x]) + k5 * (a5[x] + b5[x]) + k6 * (a6[x] + b6[x])
        return
    z = ring[y % size]
    for x in range(n):
        out[x] = k[0] * z[x]
    for t in range(1, len(k)):
        a, b = ring[(y - t) % size], ring[(y + t) % size]
        for x in range(n):
            out[x] += k[t] * (a[x] + b[x])


@njit(nogil=True, cache=True)
def detect_runs(
    image, flags, power, k, per_noise, y_edges, x_edges, low, high, start, stop, run_y, run_a, run_b, light
):
    """Runs of pixels of rows start to stop whose smoothed light reaches ``low`` times its noise.

    ``power`` are the model's monomial coefficients; ``k`` the symmetric kernel, centre first; ``per_noise``
    (gy, gx) one over the noise of the smoothed image in each superpixel. Written are, by row, then column:
    row, first column and one past the last; and in ``light`` (n, 4) float32 the sum of image - model, its
    largest value, the number of saturated pixels, and 1 where a pixel reaches ``high``. Everything about a
    row is done while it is in cache. Returns the number of runs; those beyond the length of the arrays are
    counted, not written.
    """
    ny, nx = image.shape
    half = len(k) - 1
    size = 2 * half + 1
    u = ((2.0 * np.arange(nx) - nx + 1) / nx).astype(np.float32)
    residual = np.zeros((size, nx + 2 * half), np.float32)
    ring = np.zeros((size, nx), np.float32)
    smooth = np.empty(nx, np.float32)
    scale = np.empty(nx, np.float32)
    classes = np.zeros((nx + 7) // 8 * 8, np.uint8)
    words = classes.view(np.uint64)
    low, high = np.float32(low), np.float32(high)
    n = 0
    j = -1
    for y in range(start - half, stop + half):
        if 0 <= y < ny:
            _residual_row(image, flags, y, power, u, residual[y % size, half : half + nx])
            _smooth_row(residual[y % size], k, half, ring[y % size])
        else:
            ring[y % size][:] = 0
        at = y - half
        if at < start:
            continue
        if j < 0 or at >= y_edges[j + 1]:
            while j < 0 or at >= y_edges[j + 1]:
                j += 1
            for i in range(len(x_edges) - 1):
                scale[x_edges[i] : x_edges[i + 1]] = per_noise[j, i]
        _smooth_column(ring, at, k, smooth)
        for x in range(nx):
            s = smooth[x] * scale[x]
            classes[x] = np.uint8(s >= low) + np.uint8(s >= high)
        n = _runs_of_row(
            classes,
            words,
            nx,
            at,
            residual[at % size, half : half + nx],
            flags[at],
            n,
            run_y,
            run_a,
            run_b,
            light,
        )
    return n


@njit(nogil=True, cache=True)
def _runs_of_row(classes, words, width, y, residual, flag, n, run_y, run_a, run_b, light):
    """Append the runs of one row, eight empty pixels at a time; returns the number of runs so far."""
    capacity = len(run_y)
    x = 0
    w = 0
    while w < len(words):
        if words[w] == 0:
            w += 1
            continue
        x = max(x, 8 * w)
        end = 8 * w + 8
        while x < end:
            if classes[x] == 0:
                x += 1
                continue
            first = x
            flux = np.float32(0)
            peak = np.float32(-np.inf)
            saturated = 0
            high = 0
            while x < width and classes[x] != 0:
                r = residual[x]
                flux += r
                peak = max(peak, r)
                saturated += flag[x] >> 1 & 1
                high |= classes[x] >> 1
                x += 1
            if n < capacity:
                run_y[n], run_a[n], run_b[n] = y, first, x
                light[n, 0], light[n, 1], light[n, 2], light[n, 3] = flux, peak, saturated, high
            n += 1
        w = x >> 3
    return n


@njit(nogil=True, cache=True)
def convolve(image, k, start, stop, out):
    """Rows start to stop of an image convolved with a symmetric separable kernel, zero outside it."""
    ny, nx = image.shape
    half = len(k) - 1
    padded = np.zeros(nx + 2 * half, np.float32)
    ring = np.zeros((2 * half + 1, nx), np.float32)
    for y in range(start - half, stop + half):
        if 0 <= y < ny:
            padded[half : half + nx] = image[y]
            _smooth_row(padded, k, half, ring[y % (2 * half + 1)])
        else:
            ring[y % (2 * half + 1)][:] = 0
        if y - half >= start:
            _smooth_column(ring, y - half, k, out[y - half])


@njit(nogil=True, cache=True)
def find_runs(significance, low, high, run_y, run_a, run_b, light):
    """Runs of values of at least ``low``, as `detect_runs`; ``significance`` (ny, nx) float32 is small."""
    ny, nx = significance.shape
    classes = np.zeros((nx + 7) // 8 * 8, np.uint8)
    words = classes.view(np.uint64)
    flag = np.zeros(nx, np.uint8)
    n = 0
    for y in range(ny):
        for x in range(nx):
            s = significance[y, x]
            classes[x] = np.uint8(s >= low) + np.uint8(s >= high)
        n = _runs_of_row(classes, words, nx, y, significance[y], flag, n, run_y, run_a, run_b, light)
    return n


@njit(nogil=True, cache=True)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(nogil=True, cache=True)
def label_runs(run_y, run_a, run_b):
    """Label of each run, 0 to n - 1 by first appearance; runs that touch, also by corners, share one."""
    n = len(run_y)
    parent = np.arange(n).astype(np.int32)
    above = 0
    for i in range(n):
        y = run_y[i]
        while above < i and (run_y[above] < y - 1 or (run_y[above] == y - 1 and run_b[above] < run_a[i])):
            above += 1
        j = above
        while j < i and run_y[j] == y - 1 and run_a[j] <= run_b[i]:
            p, q = _root(parent, i), _root(parent, j)
            if p < q:
                parent[q] = p
            elif q < p:
                parent[p] = q
            j += 1
    labels = np.empty(n, np.int32)
    count = 0
    for i in range(n):
        root = _root(parent, i)
        if root == i:
            labels[i] = count
            count += 1
        else:
            labels[i] = labels[root]
    return labels, count


@njit(nogil=True, cache=True)
def mark_kept(reached, labels, kept):
    """Set ``kept`` of each label of which a run has ``reached`` the threshold for peaks."""
    for i in range(len(labels)):
        if reached[i] > 0:
            kept[labels[i]] = True


@njit(nogil=True, cache=True)
def keep_runs(kept, run_y, run_a, run_b, light, labels):
    """Move runs whose label is kept to the front and renumber the labels; returns how many there are."""
    renumbered = np.empty(len(kept), np.int32)
    count = 0
    for k in range(len(kept)):
        renumbered[k] = count
        count += kept[k]
    n = 0
    for i in range(len(labels)):
        if kept[labels[i]]:
            run_y[n], run_a[n], run_b[n] = run_y[i], run_a[i], run_b[i]
            for c in range(light.shape[1]):
                light[n, c] = light[i, c]
            labels[n] = renumbered[labels[i]]
            n += 1
    return n


@njit(nogil=True, cache=True)
def measure_footprints(run_y, run_a, run_b, light, labels, table, start, longest):
    """Sums over the runs of each footprint, into ``table`` (n, 9) float64.

    Columns: area; flux, peak and saturated pixels, as `detect_runs` has them; and sums of x, y, x^2, x y, y^2
    over the footprint's pixels from ``start`` (n, 2), the x and y of its first pixel.
    ``longest`` (n,) becomes the index of its longest run.
    """
    table[:] = 0
    table[:, 2] = -np.inf
    longest[:] = -1
    for i in range(len(run_y)):
        k = labels[i]
        y, a, b = run_y[i], run_a[i], run_b[i]
        n = b - a
        if longest[k] < 0:
            start[k, 0], start[k, 1] = a, y
            longest[k] = i
        elif n > run_b[longest[k]] - run_a[longest[k]]:
            longest[k] = i
        row = table[k]
        da, dy = float(a - start[k, 0]), float(y - start[k, 1])
        last = da + n - 1
        sx = n * (da + last) / 2
        row[0] += n
        row[1] += light[i, 0]
        row[2] = max(row[2], light[i, 1])
        row[3] += light[i, 2]
        row[4] += sx
        row[5] += n * dy
        row[6] += _squares(last) - _squares(da - 1)
        row[7] += sx * dy
        row[8] += n * dy * dy


@njit(nogil=True, cache=True)
def _squares(n):
    """Sum of squares from 0 to n, a polynomial that also serves negative n."""
    return n * (n + 1) * (2 * n + 1) / 6


@njit(nogil=True, cache=True)
def paint_runs(run_y, run_a, run_b, labels, radius, value, flags):
    """Set bits ``value`` within ``radius[label]`` pixels of each run; a negative radius paints nothing."""
    ny, nx = flags.shape
    value = np.uint8(value)
    for i in range(len(run_y)):
        r = radius[labels[i]]
        if r < 0:
            continue
        for dy in range(-int(r), int(r) + 1):
            y = run_y[i] + dy
            if 0 <= y < ny:
                w = int(np.sqrt(r * r - dy * dy))
                row = flags[y]
                for x in range(max(0, run_a[i] - w), min(nx, run_b[i] + w)):
                    row[x] |= value


@njit(nogil=True, cache=True)
def paint_ellipses(centre_x, centre_y, xx, xy, yy, value, flags):
    """Set bits ``value`` inside d^T M^-1 d <= 1 about each centre, M = [[xx, xy], [xy, yy]] pixel^2."""
    ny, nx = flags.shape
    value = np.uint8(value)
    for i in range(len(centre_x)):
        det = xx[i] * yy[i] - xy[i] * xy[i]
        if not det > 0:
            continue
        height = np.sqrt(yy[i])
        for y in range(
            max(0, int(np.ceil(centre_y[i] - height))), min(ny - 1, int(centre_y[i] + height)) + 1
        ):
            t = (y - centre_y[i]) / yy[i]
            middle = centre_x[i] + xy[i] * t
            inside = det / yy[i] * (1 - t * t * yy[i])
            if inside < 0:
                continue
            w = np.sqrt(inside)
            row = flags[y]
            for x in range(max(0, int(np.ceil(middle - w))), min(nx - 1, int(np.floor(middle + w))) + 1):
                row[x] |= value


@njit(nogil=True, cache=True)
def bin_residual(image, flags, power, ignored, size, start, stop, total, count):
    """Sum of image - model and number of its good pixels in blocks of ``size``, for block rows start to stop.

    Pixels with a bit of ``ignored`` in their flags, and such as are not finite, are left out. ``total``
    (by, bx) float32 and ``count`` (by, bx) float32 are written whole in those rows.
    """
    ny, nx = image.shape
    u = ((2.0 * np.arange(nx) - nx + 1) / nx).astype(np.float32)
    model = np.empty(nx, np.float32)
    sums = np.empty(nx, np.float32)
    counts = np.empty(nx, np.uint8)
    ignored = np.uint8(ignored)
    zero = np.float32(0)
    for j in range(start, stop):
        sums[:] = 0
        counts[:] = 0
        for y in range(j * size, min(ny, (j + 1) * size)):
            model_row(power, y, ny, u, model)
            row = image[y]
            flag = flags[y]
            for x in range(nx):
                r = row[x] - model[x]
                good = (flag[x] & ignored) == 0 and abs(r) <= np.float32(1e30)
                sums[x] += r if good else zero
                counts[x] += np.uint8(good)
        for i in range(total.shape[1]):
            s = zero
            n = zero
            for x in range(i * size, min(nx, (i + 1) * size)):
                s += sums[x]
                n += counts[x]
            total[j, i] = s
            count[j, i] = n


@njit(nogil=True, cache=True)
def paint_blocks(blocks, size, value, flags):
    """Set bits ``value`` in all pixels of the blocks, (by, bx) bool, of ``size`` pixels."""
    ny, nx = flags.shape
    value = np.uint8(value)
    for y in range(ny):
        row = flags[y]
        chosen = blocks[y // size]
        for i in range(blocks.shape[1]):
            if chosen[i]:
                for x in range(i * size, min(nx, (i + 1) * size)):
                    row[x] |= value


@njit(nogil=True, cache=True)
def count_flagged(flags, bits, y_edges, x_edges, out):
    """Pixels of each superpixel that have any of ``bits``, into ``out`` (gy, gx) int64."""
    bits = np.uint8(bits)
    nx = flags.shape[1]
    columns = np.empty(nx, np.int32)
    for j in range(len(y_edges) - 1):
        columns[:] = 0
        for y in range(y_edges[j], y_edges[j + 1]):
            row = flags[y]
            for x in range(nx):
                columns[x] += np.int32((row[x] & bits) != 0)
        for i in range(len(x_edges) - 1):
            n = 0
            for x in range(x_edges[i], x_edges[i + 1]):
                n += columns[x]
            out[j, i] = n


@njit(nogil=True, cache=True)
def set_bits(flags, flag, bits, mask):
    """Set ``bits`` in the mask wherever ``flag`` is in the flags."""
    flag = np.uint8(flag)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if flags[y, x] & flag:
                mask[y, x] |= bits


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
                good = np.sort(values[:n])
                at = quantile * (n - 1)
                k = int(at)
                out[j, i] = good[k] + (at - k) * (good[min(k + 1, n - 1)] - good[k])


@njit(nogil=True, cache=True)
def sharp_blocks(image, model, flags, unusable, noise, threshold, contrast, size, blocks):
    """Mark blocks, (by, bx) bool, with a pixel that stands out of its four neighbours' mean.

    It does by more than ``threshold`` of the noise per pixel and more than ``contrast`` of its own light, and
    has none of the flags ``unusable``.
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
                    blocks[y // size, x // size] = True
