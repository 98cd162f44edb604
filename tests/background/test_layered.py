"""Backgrounds with steps and small structure, and how they are kept."""

import dataclasses

import numpy as np
import pytest

from skysub.background.config import BackgroundConfig
from skysub.background.faint_light import FaintLight
from skysub.background.layered import LayeredBackground, interpolated
from skysub.background.model import Background, BackgroundList, fit_statistics
from skysub.background.superpixels import SuperpixelGrid, SuperpixelStatistics
from skysub.campaign.store.backgrounds import inline, outline
from skysub.errors import InvalidImageError
from skysub.visit.fits.background import read_background, write_background

SHAPE = (60, 80)


@pytest.fixture(scope="module")
def layered():
    config = BackgroundConfig(superpixel=20, order=1)
    grid = SuperpixelGrid.over(SHAPE, config)
    mean = np.add.outer(grid.y_centers, 2 * grid.x_centers).astype(np.float32)
    statistics = SuperpixelStatistics(mean, np.full((3, 4), 0.5, np.float32), np.full((3, 4), 400, np.int32))
    smooth = fit_statistics(grid, statistics, config)
    own = {each.name: getattr(smooth, each.name) for each in dataclasses.fields(Background)}
    own["faint_light"] = FaintLight(2.0, 3.0, "by hand")
    return LayeredBackground(
        **own,
        boxes=((0, 30, 0, 80), (30, 60, 10, 40)),
        steps=np.array([1.5, -4.0]),
        cells=np.array([[0.0, 8.0]], np.float32),
        deviation=np.full((3, 4), 4.0, np.float32),
    )


def test_parts_add_up(layered):
    model = layered.evaluate()
    # x runs over two cells with centres at 19.5 and 59.5
    assert model[10, 20] == pytest.approx(10 + 40 + 1.5 + 8 * 0.5 / 40, abs=1e-3)
    assert model[45, 15] == pytest.approx(45 + 30 - 4.0, abs=1e-3)
    assert model[45, 75] == pytest.approx(45 + 150 + 8.0, abs=1e-3)
    assert np.array_equal(layered.evaluate(y=slice(25, 41), x=slice(5, 33)), model[25:41, 5:33])
    image = np.full(SHAPE, 7.0, np.float32)
    np.testing.assert_allclose(layered.subtract_from(image), 7 - model, atol=2e-4)
    np.testing.assert_allclose(layered.evaluate(faint_light=False), model - 2, atol=1e-4)
    assert layered.uncertainty()[5, 5] == pytest.approx(4.0)
    assert layered.uncertainty(faint_light=False)[5, 5] == pytest.approx(5.0)


def test_cells_are_linear_between_centres_and_constant_beyond():
    values = interpolated(np.array([[0.0, 10.0]], np.float32), (2, 20), range(2), range(20))
    assert values[0, 0] == 0
    assert values[1, 19] == 10
    assert values[0, 9] == pytest.approx(4.5)
    assert values[0, 10] == pytest.approx(5.5)


def test_a_store_gives_back_the_same_bits(layered):
    back = outline(inline(BackgroundList([layered])))
    assert isinstance(back[0], LayeredBackground)
    assert back.evaluate().tobytes() == BackgroundList([layered]).evaluate().tobytes()
    assert back.uncertainty().tobytes() == layered.uncertainty().tobytes()
    assert back[0].boxes == layered.boxes


def test_a_file_gives_back_the_same_bits(layered, tmp_path):
    write_background(layered, tmp_path / "b.fits")
    assert read_background(tmp_path / "b.fits").evaluate().tobytes() == layered.evaluate().tobytes()
    smooth = dataclasses.replace(layered, boxes=(), steps=None, cells=None)
    write_background(smooth, tmp_path / "b.fits")
    assert read_background(tmp_path / "b.fits").evaluate().tobytes() == smooth.evaluate().tobytes()


def test_parts_that_do_not_fit_are_refused(layered):
    with pytest.raises(InvalidImageError, match="boxes"):
        dataclasses.replace(layered, steps=np.zeros(3))
    with pytest.raises(InvalidImageError, match="does not lie"):
        dataclasses.replace(layered, boxes=((0, 99, 0, 5), (0, 1, 0, 1)))
    with pytest.raises(InvalidImageError, match="cells"):
        dataclasses.replace(layered, cells=np.zeros(3, np.float32))
