"""calibrate_image of images in blocks: the bits of the whole, wherever the blocks end."""

import dataclasses
import pickle

import numpy as np
import pytest

import skysub
from skysub.background.row_blocks import AtOnce, RowBlocks
from skysub.background.rows import sampled
from skysub.errors import InvalidImageError
from skysub.pipeline.config import SkyConfig
from skysub.pipeline.cosmic_rays import CosmicRayConfig
from skysub.pipeline.preview import preview_of
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene


class Arrays:
    """Planes of an image in memory, of which it counts the rows that are asked for."""

    key = "arrays"

    def __init__(self, visit_image):
        self._planes = {
            name: getattr(visit_image, name)
            for name in ("image", "mask", "variance")
            if getattr(visit_image, name) is not None
        }
        self.most = 0

    def rows(self, name, rows):
        self.most = max(self.most, len(rows))
        return {name: self._planes[name][rows.start : rows.stop]}


class Sent(AtOnce):
    """Tasks get what they get after a journey to another process, and so cannot change what is kept."""

    def submit(self, block, function, task, *rest):
        source = task.source
        task, rest = pickle.loads(pickle.dumps((dataclasses.replace(task, source=None), rest)))
        return super().submit(block, function, dataclasses.replace(task, source=source), *rest)


def in_blocks(visit_image, cuts, *, halo=64):
    source = Arrays(visit_image)
    group = RowBlocks(
        visit_image.shape,
        cuts,
        halo=halo,
        source=source,
        dtypes={"image": np.float32, "mask": visit_image.mask.dtype, "variance": np.float32},
        executor=Sent(),
        held=0,
    )
    planes = {name: group.plane(name) for name in ("image", "mask")}
    variance = None if visit_image.variance is None else group.plane("variance")
    return visit_image.replace(variance=variance, **planes), source


def assert_same(whole, blocks):
    image, other = whole.preliminary_visit_image, blocks.preliminary_visit_image
    np.testing.assert_array_equal(sampled((other.image,), 1)[0].view(np.uint32), image.image.view(np.uint32))
    np.testing.assert_array_equal(sampled((other.mask,), 1)[0], image.mask)
    np.testing.assert_equal(blocks.summary, whole.summary)
    assert blocks.flags == whole.flags
    assert blocks.passes == whole.passes
    for name, picture in preview_of(image).items():
        np.testing.assert_array_equal(preview_of(other)[name], picture)
    layer, again = (each.preliminary_visit_image_background[0] for each in (whole, blocks))
    np.testing.assert_array_equal(again.coefficients, layer.coefficients)
    np.testing.assert_array_equal(again.covariance, layer.covariance)
    np.testing.assert_equal(dataclasses.asdict(again.statistics), dataclasses.asdict(layer.statistics))
    if whole.psf is not None:
        np.testing.assert_array_equal(blocks.psf.stars.flux, whole.psf.stars.flux)
        np.testing.assert_array_equal(
            blocks.aperture_correction.coefficients, whole.aperture_correction.coefficients
        )


@pytest.fixture(scope="module")
def field():
    """A scene of 517 x 430 pixels with a saturated star, galaxies, defects and cosmic rays."""
    return simulate_detector(named_scene("quiet"), 1, 0, seed=3, shape=(517, 430))[0]


SMALL = skysub.BackgroundConfig(superpixel=48, order=3)
CONFIG = skysub.CalibrateImageConfig(
    sky=SkyConfig(background=SMALL), cosmic_rays=CosmicRayConfig(interpolate=True)
)


@pytest.fixture(scope="module")
def whole(field):
    return skysub.calibrate_image(field, CONFIG)


@pytest.mark.parametrize(
    ("cuts", "halo"),
    [
        ((0, 235, 517), 64),
        ((0, 47, 141, 188, 376, 470, 517), 40),
        ((0, 100, 333, 400, 517), 0),
        ((0, 517), 0),
    ],
)
def test_the_same_bits_wherever_blocks_end(field, whole, cuts, halo):
    blocks, source = in_blocks(field, cuts, halo=halo)
    assert_same(whole, skysub.calibrate_image(blocks, CONFIG))
    if len(cuts) > 2 and halo:
        assert source.most < 517


def test_steps_of_amplifiers_in_blocks(field):
    boxes = (
        skysub.Amplifier("low", y=(0, 251), x=(0, 430)),
        skysub.Amplifier("high", y=(251, 517), x=(0, 430)),
    )
    image = field.image.copy()
    image[251:] += np.float32(30)
    stepped = field.replace(image=image, amplifiers=boxes)
    found = skysub.calibrate_image(stepped, CONFIG)
    assert found.amplifiers is not None
    blocks, _ = in_blocks(stepped, (0, 188, 329, 517))
    assert_same(found, skysub.calibrate_image(blocks, CONFIG))


def test_the_darkest_pixels_of_a_crowded_field_in_blocks(field):
    mask = dataclasses.replace(CONFIG.sky.mask, peak_threshold=0.4, edge_threshold=0.3, extended=None)
    config = dataclasses.replace(CONFIG, sky=dataclasses.replace(CONFIG.sky, mask=mask))
    found = skysub.calibrate_image(field, config)
    assert "crowded" in found.flags
    blocks, _ = in_blocks(field, (0, 188, 329, 517), halo=30)
    assert_same(found, skysub.calibrate_image(blocks, config))


def test_what_needs_the_whole_is_refused_in_blocks(field):
    blocks, _ = in_blocks(field, (0, 235, 517))
    with pytest.raises(InvalidImageError, match="flow='default'"):
        skysub.calibrate_image(blocks, skysub.CalibrateImageConfig.named("lsst"))
