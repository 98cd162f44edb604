"""Seeded images of the afw reference cases in tests/data/afw; each case's meta holds their sha256."""

import functools

import numpy as np

BAD, SAT, INTRP, CR, EDGE, DETECTED, DETECTED_NEGATIVE, SUSPECT, NO_DATA = (1 << i for i in range(9))
IGNORED = BAD | EDGE | DETECTED | DETECTED_NEGATIVE | NO_DATA

SMALL_SHAPES = {
    "e_50x40": (40, 50),
    "e_7x5": (5, 7),
    "e_1x1": (1, 1),
    "e_2x1": (1, 2),
    "e_300x100": (100, 300),
    "e_129x129": (129, 129),
    "e_640x20": (20, 640),
}
SQUARES = {"g_7x7": 896, "g_3x3": 384, "g_2x2": 256}


def stream(seed):
    return np.random.Generator(np.random.PCG64(seed))


def flat(ny, nx, seed):
    image = (1000.0 + 30.0 * stream(seed).standard_normal((ny, nx))).astype(np.float32)
    return image, np.zeros((ny, nx), np.int32)


def surface(ny, nx):
    y, x = np.mgrid[0:ny, 0:nx]
    u = (x - (nx - 1) / 2) * 2 / nx
    v = (y - (ny - 1) / 2) * 2 / ny
    low = 800 + 60 * u - 35 * v + 20 * u * v + 15 * u * u - 25 * v * v
    return low + 8 * u**3 - 6 * u * v * v + 4 * v**4 + 3 * u**5 * v - 2 * u**6


def add_stars(image, mask, seed, count):
    random = stream(seed)
    ny, nx = image.shape
    for _ in range(count):
        x, y = random.uniform(0, nx), random.uniform(0, ny)
        flux, width = 10 ** random.uniform(2.5, 5.5), random.uniform(1.8, 3.0)
        reach = int(6 * width + 2)
        cut = (
            slice(max(0, int(y) - reach), min(ny, int(y) + reach + 1)),
            slice(max(0, int(x) - reach), min(nx, int(x) + reach + 1)),
        )
        yy, xx = np.mgrid[cut]
        star = (
            flux
            / (2 * np.pi * width * width)
            * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * width * width))
        )
        image[cut] += star.astype(np.float32)
        if random.random() < 0.7:
            mask[cut][star > 10] |= DETECTED


@functools.cache
def detector(ny, nx, seed):
    random = stream(seed)
    image = (surface(ny, nx) + 28 * random.standard_normal((ny, nx))).astype(np.float32)
    mask = np.zeros((ny, nx), np.int32)
    add_stars(image, mask, seed + 1, 4000)
    random = stream(seed + 2)
    for _ in range(8):
        column = int(random.integers(0, nx))
        mask[:, column] |= BAD
        image[:, column] = 0
    mask[:4] |= EDGE
    mask[-4:] |= EDGE
    mask[:, :4] |= EDGE
    mask[:, -4:] |= EDGE
    for _ in range(2000):
        y, x = int(random.integers(0, ny)), int(random.integers(0, nx))
        mask[y, x : x + 5] |= CR | SUSPECT
        image[y, x : x + 5] += 2000
    y, x = int(ny * 0.6), int(nx * 0.3)
    mask[y : y + 300, x : x + 40] |= SAT | NO_DATA
    image[y : y + 300, x : x + 40] = np.nan
    for _ in range(300):
        image[int(random.integers(0, ny)), int(random.integers(0, nx))] = np.nan
    return image, mask


def without_nan():
    random = stream(21)
    y, x = np.mgrid[0:1024, 0:1024]
    image = (500 + 0.1 * x - 0.05 * y + 12 * random.standard_normal((1024, 1024))).astype(np.float32)
    mask = np.zeros((1024, 1024), np.int32)
    mask[random.random((1024, 1024)) < 0.05] |= DETECTED
    mask[random.random((1024, 1024)) < 0.02] |= SAT
    image[(mask & DETECTED) > 0] += 500
    image[(mask & SAT) > 0] += 40
    mask[300:420, 500:700] |= NO_DATA
    return image, mask


def partly_masked(name):
    ny, nx = 640, 768
    image, mask = flat(ny, nx, 51)
    image += (surface(ny, nx) - 800).astype(np.float32)
    mask[128:256, 128:256] |= DETECTED
    if "adjacent" in name:
        mask[256:512, 384:768] |= NO_DATA
    if "onlyfew" in name:
        mask[:] |= BAD
        mask[0:128, 0:128] = 0
        mask[512:, 640:] = 0
        mask[256:384, 384:512] = 0
    if "all" in name:
        mask[:] |= BAD
    return image, mask


def odd_values(kind):
    image, mask = flat(512, 512, 71)
    random = stream(72)
    if kind == "f_outliers":
        image[random.random((512, 512)) < 0.02] = 1e30
        image[random.random((512, 512)) < 0.02] = -1e30
        image[random.random((512, 512)) < 0.01] = np.float32(3.4e38)
        image[random.random((512, 512)) < 0.005] = np.inf
        image[0:128, 0:128][random.random((128, 128)) < 0.4] = 1e6
    elif kind == "f_constant":
        image[:] = 123.456
    elif kind == "f_integers":
        image = np.rint(1000 + 2.2 * random.standard_normal((512, 512))).astype(np.float32)
    else:
        scale = {"f_hugescale": 1e15, "f_hugescale13": 1e11, "f_tinyscale": 1e-20, "f_denormal": 1e-42}[kind]
        image = (image.astype(np.float64) * scale).astype(np.float32)
    return image, mask


def inputs(name):
    """Image float32 and mask int32, (ny, nx) each, of a case."""
    kind = name.split("-")[0]
    if name.startswith("a_"):
        return flat(256, 256, 11)
    if name.startswith("b_"):
        return without_nan()
    if name.startswith("c_"):
        return detector(4000, 4072, 31)
    if name.startswith("d_"):
        return partly_masked(name)
    if name.startswith("e_"):
        return flat(*SMALL_SHAPES[kind], 61)
    if name.startswith("f_"):
        return odd_values(kind)
    size = SQUARES[kind]
    image, mask = flat(size, size, 81)
    return image + (surface(size, size) - 800).astype(np.float32), mask
