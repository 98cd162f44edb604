"""Previews against sums worked out by hand."""

import numpy as np
import pytest

import skysub
from skysub.campaign.store.previews import packed_preview, unpacked_preview
from skysub.pipeline.preview import cells, preview_of
from skysub.visit.planes import MaskPlanes


@pytest.fixture
def visit_image():
    """Two by two cells of 3 x 4 pixels, each with something of its own."""
    image = np.arange(48, dtype=np.float32).reshape(6, 8)
    mask = np.zeros((6, 8), np.int32)
    planes = {"BAD": 0, "DETECTED": 1, "SAT": 2}
    mask[0, 0] = 1  # bad
    mask[0, 1:4] = 2  # detected
    mask[:3, 4:] = 2  # a cell full of sources
    mask[3, 0] = 4  # saturated: a defect, but seen
    image[5, 7] = np.nan
    return skysub.VisitImage(visit=1, detector=0, image=image, mask=mask, planes=MaskPlanes(planes))


def test_each_picture_by_hand(visit_image):
    found = preview_of(visit_image, 2)
    image = visit_image.image.astype(float)
    first = np.delete(image[:3, :4].ravel(), 0)
    assert found["image"][0, 0] == pytest.approx(first.mean())
    assert found["residual"][0, 0] == pytest.approx(image[1:3, :4].mean())
    assert found["image"][0, 1] == pytest.approx(image[:3, 4:].mean())
    assert np.isnan(found["residual"][0, 1])
    assert found["image"][1, 0] == pytest.approx(image[3:, :4].mean())
    assert found["residual"][1, 0] == pytest.approx(np.delete(image[3:, :4].ravel(), 0).mean())
    assert found["image"][1, 1] == pytest.approx(np.nanmean(image[3:, 4:]))
    np.testing.assert_allclose(found["sources"], [[3 / 12, 1], [0, 0]])
    np.testing.assert_allclose(found["defects"], [[1 / 12, 0], [1 / 12, 0]])


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (130, 57), (4000, 4072)])
def test_cells_cover_the_image_and_keep_to_the_edge(shape):
    grid = cells(shape, 56)
    assert (grid.y_edges[-1], grid.x_edges[-1]) == shape
    assert max(grid.shape) <= 56


@pytest.mark.parametrize("level", [0.0, 1e-3, -4e9])
def test_text_and_back(visit_image, level):
    preview = preview_of(visit_image, 3)
    preview = {**preview, "image": preview["image"] * np.float32(level)}
    found = unpacked_preview(packed_preview(preview))
    assert found.keys() == preview.keys()
    for name, values in preview.items():
        within = 0.51 / 63 if name in {"sources", "defects"} else np.nanmax(np.abs(values)) / 100
        np.testing.assert_allclose(found[name], values, rtol=0, atol=within)
        assert found[name].dtype == np.float32


def test_faint_light_beside_a_bright_star_is_kept():
    sky = np.random.default_rng(1).normal(3.0, 0.5, (56, 56)).astype(np.float32)
    sky[7, 9], sky[0, 0], sky[5, 5] = 5e5, np.nan, -40.0
    kept = packed_preview({"image": sky})
    (found,) = unpacked_preview(kept).values()
    near = np.abs(sky - 3) < 2.5
    # half a step of an eighth of the scatter, and a little for the bend
    np.testing.assert_allclose(found[near], sky[near], rtol=0, atol=0.15)
    np.testing.assert_allclose(np.abs(found - sky)[near].mean(), 0, atol=0.03)
    np.testing.assert_allclose([found[7, 9], found[5, 5]], [5e5, -40.0], rtol=0.1)
    assert np.isnan(found[0, 0])
    assert np.isnan(found).sum() == 1
    # a tenth of a picture's float32, as text
    assert len(kept["image"]["zlib"]) < 4000
