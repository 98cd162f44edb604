"""The statistics of a superpixel as the rules say them, in plain NumPy, to hold the kernels against."""

import numpy as np


def quartiles(good):
    return np.quantile(good.astype(np.float64), [0.25, 0.5, 0.75], method="linear")


def moments(values, centre):
    d = values.astype(np.float64) - centre
    n = len(d)
    if n == 0:
        return np.nan, np.nan
    shift = d.sum() / n
    if n == 1:
        return centre + shift, np.nan
    return centre + shift, max(0.0, (d * d).sum() / n - shift * shift) * n / (n - 1)


def one_superpixel(pixels, *, statistic="meanclip", sigma=3.0, passes=3):
    """Value and standard error of the good pixels of one superpixel."""
    good = pixels[np.isfinite(pixels)]
    n = len(good)
    if n == 0:
        return np.nan, np.nan
    q1, median, q3 = quartiles(good)
    if statistic != "meanclip":
        mean, variance = moments(good, good.astype(np.float64).mean())
        if statistic == "mean":
            return mean, np.sqrt(variance / n)
        return median, np.sqrt(np.pi / 2 * variance / n)
    centre, half, variance, kept = median, sigma * 0.741301109252802 * (q3 - q1), np.nan, 0
    for k in range(passes):
        if k and n > 1:
            half = sigma * np.sqrt(variance)
        clipped = good[np.abs(good.astype(np.float64) - centre) <= half]
        kept = len(clipped)
        centre, variance = moments(clipped, centre)
    return centre, np.sqrt(variance / kept) if kept else np.nan


def statistics(image, ignored, grid, **settings):
    """Value, error and count of each superpixel, (gy, gx) each."""
    pixels = np.where(ignored, np.nan, image)
    gy, gx = grid.shape
    value, error, count = np.empty((gy, gx)), np.empty((gy, gx)), np.empty((gy, gx), int)
    for j in range(gy):
        for i in range(gx):
            cut = pixels[grid.y_edges[j] : grid.y_edges[j + 1], grid.x_edges[i] : grid.x_edges[i + 1]]
            value[j, i], error[j, i] = one_superpixel(cut, **settings)
            count[j, i] = np.isfinite(cut).sum()
    return value, error, count
