"""What notebooks show: short, escaped, with pictures that decode."""

import base64
import re
import zlib

import numpy as np
import pytest

import skysub
from skysub.html import card, picture, thumbnail


def test_text_is_escaped():
    made = card("<b>", {"a<": "<script>alert(1)</script>"})
    assert "<script>" not in made
    assert "&lt;script&gt;" in made


def test_a_picture_has_row_zero_at_the_bottom_and_nan_in_grey():
    values = np.array([[0.0, 1.0, 2.0], [3.0, np.nan, 4.0]])
    made = picture(values, 'a "name"', low=0.0, high=4.0)
    assert "&quot;name&quot;" in made
    png = base64.b64decode(re.search(r"base64,([^\"]+)", made)[1])
    length = int.from_bytes(png[33:37])
    rows = np.frombuffer(zlib.decompress(png[41 : 41 + length]), np.uint8).reshape(2, 4)[:, 1:]
    np.testing.assert_array_equal(rows, [[191, 128, 255], [0, 63, 127]])
    assert not picture(np.full((2, 2), np.nan), "nothing")


def test_thumbnails_leave_nan_out():
    image = np.arange(600.0 * 500).reshape(600, 500)
    image[:3, :3] = np.nan
    small = thumbnail(image, edge=200)
    assert small.shape == (200, 166)
    assert np.isnan(small[0, 0])
    assert small[10, 10] == pytest.approx(image[30:33, 30:33].mean())


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(12)
    y, x = np.mgrid[:256, :256]
    light = np.zeros((256, 256))
    for _ in range(40):
        cy, cx, flux = rng.uniform(10, 246), rng.uniform(10, 246), 10 ** rng.uniform(3.5, 5)
        light += flux / 25 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 8)
    visit_image = skysub.VisitImage(
        image=rng.poisson(800 + light).astype(np.float32),
        mask=np.zeros((256, 256), np.int32),
        planes=skysub.MaskPlanes({"BAD": 0}),
        visit=7,
        detector=3,
    )
    return skysub.calibrate_image(visit_image)


def test_objects_show_themselves(result):
    for shown, words in (
        (result, ("skyBg", "detector")),
        (result.preliminary_visit_image, ("256 x 256", "DETECTED")),
        (result.preliminary_visit_image_background, ("superpixels", "chebyshev")),
        (result.psf, ("full width", "stars")),
    ):
        made = shown._repr_html_()
        assert "data:image/png;base64" in made
        assert all(word in made for word in words)
        assert len(made) < 200_000
        assert len(repr(shown)) < 1500
    assert "bit 0, value 1" in skysub.MaskPlanes({"BAD": 0})._repr_html_()
    assert len(repr(result.psf)) < 150
