"""Little images whose sources are known exactly."""

import numpy as np

PLANES = {"BAD": 0, "SAT": 1, "INTRP": 2, "CR": 3, "EDGE": 4, "SUSPECT": 7, "NO_DATA": 8}


class Gaussian:
    """PSF of a model: an elliptical Gaussian sampled at the centres of pixels, the same everywhere."""

    def __init__(self, xx=4.0, yy=4.0, xy=0.0, size=25):
        self.inverse = np.linalg.inv(np.array([[xx, xy], [xy, yy]]))
        self.norm = 2 * np.pi * np.sqrt(xx * yy - xy * xy)
        self.size = size

    def at(self, dy, dx):
        (a, b), (_, c) = self.inverse
        return np.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy)) / self.norm

    def stamps(self, x, y):
        i = np.arange(self.size) - self.size // 2
        dy, dx = (i[None, :] - (v - np.round(v))[:, None] for v in (y, x))
        return self.at(dy[:, :, None], dx[:, None, :])


def image_of(psf, sources, shape=(120, 140), noise=10.0, seed=3):
    """Image of stars (y, x, flux), with noise; and its variance."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    light = sum((f * psf.at(y - b, x - a) for b, a, f in sources), np.zeros(shape))
    random = np.random.default_rng(seed)
    image = light + noise * random.standard_normal(shape)
    return image.astype(np.float32), np.full(shape, noise**2, np.float32)
