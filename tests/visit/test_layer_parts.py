"""Backgrounds with steps, small structure and a deviation of their own, to FITS and back to the same bits."""

import dataclasses
import itertools

import numpy as np
import pytest
from astropy.io import fits

from skysub.background.amplifiers import AmplifierBackground, amplifier_grid
from skysub.background.config import BackgroundConfig
from skysub.background.estimate import fit_background
from skysub.background.faint_light import FaintLight
from skysub.background.layered import LayeredBackground
from skysub.background.model import Background, BackgroundList
from skysub.errors import LayoutError
from skysub.visit.fits.background import read_background, write_background

SHAPE = (200, 264)
BOXES = ((0, 100, 0, 132), (0, 100, 132, 264), (100, 200, 0, 132), (100, 200, 132, 264))


def layered(*, order=3, **parts):
    rng = np.random.default_rng(4)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = (500 + 0.1 * x - 0.05 * y + rng.normal(0, 20, SHAPE)).astype(np.float32)
    layer = fit_background(image, None, BackgroundConfig(superpixel=32, order=order))
    own = {each.name: getattr(layer, each.name) for each in dataclasses.fields(Background)}
    # another model than least squares of the superpixels
    own["coefficients"] = own["coefficients"] * (1 + 1e-3 * rng.standard_normal(len(own["coefficients"])))
    return LayeredBackground(**(own | parts))


PARTS = {
    "boxes": {"boxes": BOXES, "steps": np.array([0.1, -1 / 3, np.pi, 2.5])},
    "cells": {"cells": np.random.default_rng(5).normal(0, 1, (13, 17)).astype(np.float32)},
    "deviation": {"deviation": np.random.default_rng(6).uniform(0.1, 1, (7, 9)).astype(np.float32)},
    "amplifiers": {
        "amplifiers": AmplifierBackground(
            shape=SHAPE,
            amplifiers=amplifier_grid(SHAPE, rows=1, columns=2),
            steps=np.array([0.7, -0.7]),
            step_errors=np.array([0.1, 0.2]),
        )
    },
    "faint_light": {"faint_light": FaintLight(0.5, 0.2, "counted")},
}


@pytest.mark.parametrize(
    "names", [names for n in (0, 1, 2, 5) for names in itertools.combinations(PARTS, n)], ids="-".join
)
def test_all_parts_come_back_to_the_same_bits(tmp_path, names):
    given = layered(**{key: value for name in names for key, value in PARTS[name].items()})
    write_background([given], tmp_path / "b.fits", xy0=(3, 5))
    (back,) = read_background(tmp_path / "b.fits")
    assert isinstance(back, LayeredBackground)
    assert back.coefficients.tobytes() == given.coefficients.tobytes()
    np.testing.assert_array_equal(
        back.covariance, np.tril(given.covariance) + np.tril(given.covariance, -1).T
    )
    assert back.evaluate().tobytes() == given.evaluate().tobytes()
    cut = {"y": slice(90, 110), "x": slice(120, 140)}
    assert (
        back.evaluate(**cut, faint_light=False).tobytes()
        == given.evaluate(**cut, faint_light=False).tobytes()
    )
    assert back.uncertainty().tobytes() == given.uncertainty().tobytes()
    assert back.boxes == given.boxes
    if given.deviation is not None:
        assert back.deviation.tobytes() == given.deviation.tobytes()
    write_background([back], tmp_path / "again.fits", xy0=(3, 5))
    assert (tmp_path / "again.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_readers_that_add_up_layers_get_the_steps(tmp_path):
    given = layered(order=1, **PARTS["boxes"])
    write_background([given], tmp_path / "b.fits")
    with fits.open(tmp_path / "b.fits") as hdus:
        assert len(hdus) == 6
        assert hdus[3].header["INTERPSTYLE"] == 0
        np.testing.assert_allclose(hdus[3].data, [[0.1, -1 / 3], [np.pi, 2.5]], rtol=1e-6)
        assert not hdus[4].data.any()
        assert not hdus[5].data.any()


def test_several_layers_keep_their_own_parts(tmp_path):
    first, second = layered(**PARTS["cells"]), layered(order=2, **PARTS["boxes"])
    write_background([first, second], tmp_path / "b.fits")
    back = read_background(tmp_path / "b.fits")
    assert back.evaluate().tobytes() == BackgroundList([first, second]).evaluate().tobytes()
    assert back[0].steps is None
    assert back[1].cells is None


def _changed(path, change):
    with fits.open(path, mode="update") as hdus:
        change(hdus)
        for hdu in hdus:
            for name in ("CHECKSUM", "DATASUM"):
                hdu.header.remove(name, ignore_missing=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda hdus: hdus[0].header.set("SKYEXACT1", "!!!"), "SKYEXACTn are damaged"),
        (lambda hdus: hdus[0].header.remove("SKYEXACT2"), "SKYEXACTn"),
        (lambda hdus: hdus[0].data.__iadd__(1.0), "another model"),
        (lambda hdus: hdus[3].header.set("SKYPART", "OTHER"), "known are STEPS"),
        (lambda hdus: hdus[3].header.set("SKYSTEP2", "x"), "SKYSTEP2"),
        (lambda hdus: hdus[3].header.set("SKYBOX4", "[1:900,1:900]"), "does not lie on"),
        (lambda hdus: hdus[3].header.set("BKGD_WIDTH", 265), "of the same image"),
        (lambda hdus: hdus[3].data.__setitem__((0, 0), np.nan), "not finite"),
    ],
)
def test_damaged_parts_are_named(tmp_path, change, said):
    write_background([layered(**PARTS["boxes"])], tmp_path / "b.fits")
    _changed(tmp_path / "b.fits", change)
    with pytest.raises(LayoutError, match=said):
        read_background(tmp_path / "b.fits")


def test_a_part_needs_a_layer(tmp_path):
    write_background([layered(**PARTS["boxes"])], tmp_path / "b.fits")
    with fits.open(tmp_path / "b.fits") as hdus:
        alone = fits.HDUList([fits.PrimaryHDU(hdus[3].data, hdus[3].header), *[h.copy() for h in hdus[4:6]]])
        alone.writeto(tmp_path / "alone.fits")
    _changed(tmp_path / "alone.fits", lambda _: None)
    with pytest.raises(LayoutError, match="before any layer"):
        read_background(tmp_path / "alone.fits")
