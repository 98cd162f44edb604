"""A compiled loop that makes cells of an image and its mask in one pass."""

import numba
import numpy as np

__all__ = ["bin_preview"]


@numba.njit(nogil=True, cache=True)
def bin_preview(
    image, mask, excluded, sources, defects, y_edges, x_edges, least, seen, residual, covered, spoilt
):
    """Fill four pictures (gy, gx) of an image (ny, nx) and its mask.

    Cell (j, i) holds rows y_edges[j] to y_edges[j + 1] - 1, and columns likewise. ``seen``: mean of finite
    pixels without a bit of ``excluded``; ``residual``: mean of finite pixels without one of ``sources`` or
    ``defects``, NaN where their share is below ``least``; ``covered`` and ``spoilt``: shares of pixels with
    a bit of ``sources`` and of ``defects``.
    """
    gy, gx = seen.shape
    total = np.empty((2, gx), np.float64)
    count = np.empty((4, gx), np.int64)
    for j in range(gy):
        total[:] = 0.0
        count[:] = 0
        for y in range(y_edges[j], y_edges[j + 1]):
            for i in range(gx):
                a, b = 0.0, 0.0
                m, n, s, d = 0, 0, 0, 0
                for x in range(x_edges[i], x_edges[i + 1]):
                    bits = mask[y, x]
                    value = np.float64(image[y, x])
                    known = np.isfinite(value)
                    here = value if known else 0.0
                    if known and bits & excluded == 0:
                        a += here
                        m += 1
                    source, defect = bits & sources != 0, bits & defects != 0
                    s += source
                    d += defect
                    if known and not source and not defect:
                        b += here
                        n += 1
                total[0, i] += a
                total[1, i] += b
                count[0, i] += m
                count[1, i] += n
                count[2, i] += s
                count[3, i] += d
        for i in range(gx):
            pixels = (y_edges[j + 1] - y_edges[j]) * (x_edges[i + 1] - x_edges[i])
            seen[j, i] = total[0, i] / count[0, i] if count[0, i] > 0 else np.nan
            enough = count[1, i] > 0 and count[1, i] >= least * pixels
            residual[j, i] = total[1, i] / count[1, i] if enough else np.nan
            covered[j, i] = count[2, i] / pixels
            spoilt[j, i] = count[3, i] / pixels
