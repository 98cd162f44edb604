import numpy as np
import pytest

from skysub.background.config import BackgroundConfig
from skysub.background.faint_light import FaintLight
from skysub.background.model import fit_statistics
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.pipeline.joint.record import DetectorRecord

SHAPE = (2000, 2048)
GAP = 50
ERROR = 0.3
BOXES = tuple((y, y + 1000, x, x + 512) for y in (0, 1000) for x in range(0, 2048, 512))


def airglow(x, y):
    return 880 + 6 * x / 6000 + 2 * np.sin(2 * np.pi * (0.6 * x + 0.8 * y) / 9000 + 1)


def record(
    detector,
    *,
    sky=airglow,
    offset=0.0,
    steps=None,
    light=None,
    starved=None,
    shape=SHAPE,
    superpixel=128,
    seed=1,
    columns=3,
    **changes,
):
    """One detector of a camera of ``columns`` detectors a row, with noise of 0.3 e- per superpixel.

    ``light`` is a function of detector pixels (x, y), and ``starved`` tells where its mask leaves nothing.
    """
    rng = np.random.default_rng([seed, detector])
    row, column = divmod(detector, columns)
    x0, y0 = column * (SHAPE[1] + GAP), row * (SHAPE[0] + GAP)
    config = BackgroundConfig(superpixel=superpixel)
    grid = SuperpixelGrid.over(shape, config)
    y, x = np.meshgrid(grid.y_centers, grid.x_centers, indexing="ij")
    mean = sky(x + x0, y + y0) + offset + ERROR * rng.standard_normal(grid.shape)
    if steps is not None:
        for (low_y, high_y, low_x, high_x), step in zip(BOXES, steps, strict=True):
            mean[(y >= low_y) & (y < high_y) & (x >= low_x) & (x < high_x)] += step
    if light is not None:
        mean += light(x, y)
    area = superpixel**2
    good = np.full(grid.shape, int(0.6 * area))
    error = np.full(grid.shape, ERROR, np.float32)
    if starved is not None:
        gone = starved(x, y)
        good[gone] = 0
        mean[gone], error[gone] = np.nan, np.nan
    statistics = SuperpixelStatistics(mean.astype(np.float32), error, good.astype(np.int32))
    background = fit_statistics(grid, statistics, config) if np.isfinite(mean).any() else None
    given = {
        "visit": 1,
        "detector": detector,
        "background": background,
        "good": good,
        "light": 0.01,
        "place": np.array([[x0, 1.0, 0.0], [y0, 0.0, 1.0]]),
        "band": "r",
    }
    return DetectorRecord(**(given | changes))


def true_sky(detector, *, sky=airglow, columns=3, shape=SHAPE):
    """(y, x) pixels and the sky there, on every 50th pixel."""
    row, column = divmod(detector, columns)
    y, x = np.meshgrid(np.arange(25, shape[0], 50), np.arange(25, shape[1], 50), indexing="ij")
    return (y, x), sky(x + column * (SHAPE[1] + GAP), y + row * (SHAPE[0] + GAP))


def error_of(result, detector, *, offset=0.0, which="faint_light", **where):
    """Model minus true sky on every 50th pixel."""
    (y, x), sky = true_sky(detector, **where)
    return result.background(detector, which).evaluate()[y, x] - sky - offset


@pytest.fixture(scope="session")
def make_record():
    return record


@pytest.fixture(scope="session")
def model_error():
    return error_of


@pytest.fixture(scope="session")
def sky_at():
    """The sky that records have by default, at pixels of a detector."""

    def at(detector, y, x, columns=3):
        row, column = divmod(detector, columns)
        return airglow(x + column * (SHAPE[1] + GAP), y + row * (SHAPE[0] + GAP))

    return at


@pytest.fixture(scope="session")
def boxes():
    return BOXES


@pytest.fixture(scope="session")
def faint():
    return FaintLight
