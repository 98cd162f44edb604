"""The numbers that LSST's own code answers, case by case."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import skysub
from skysub import errors
from tests.background.afw_inputs import IGNORED, inputs

CASES = sorted(Path(__file__).parents[1].joinpath("data/afw").glob("*.npz"))
# where afw gives up, in setup, statistics or fit, and what we do instead
OURS = {
    "d_all": errors.NoUsableSuperpixelsError,
    "e_1x1": errors.NoUsableSuperpixelsError,
    "e_1x1-order0": errors.NoUsableSuperpixelsError,
    "e_50x40-THROW": errors.UndersampledError,
    "e_7x5-INCREASE": errors.UndersampledError,
    "f_constant": errors.NoUsableSuperpixelsError,
}
UNDERSAMPLED = {"THROW_EXCEPTION": "raise", "INCREASE_NXNYSAMPLE": "refine"}


def ulps(a, b):
    """Largest distance of two float32 arrays in units in the last place, NaN left out."""
    a, b = (np.asarray(v, np.float32).ravel() for v in (a, b))
    both = np.isfinite(a) & np.isfinite(b)
    steps = [
        np.where(v.view(np.int32) < 0, -(v.view(np.int32) & 0x7FFFFFFF), v.view(np.int32)) for v in (a, b)
    ]
    return int(np.abs(steps[0].astype(np.int64) - steps[1])[both].max(initial=0))


def load(path):
    with np.load(path) as case:
        answers = {name: case[name] for name in case.files}
    meta = json.loads(str(answers.pop("meta")))
    image, mask = inputs(path.stem)
    expected = meta.get("input_sha256")
    if expected:
        assert hashlib.sha256(image.tobytes()).hexdigest() == expected["img"], "the seeded image differs"
    arguments = meta["args"]
    config = skysub.BackgroundConfig(
        superpixel=int(arguments["bin"]),
        order=int(arguments["order"]),
        weighting=bool(int(arguments["weighting"])),
        undersampled=UNDERSAMPLED.get(arguments.get("under"), "reduce"),
    )
    return image, mask, config, meta, answers


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_numbers_of_afw(path):
    image, mask, config, meta, answers = load(path)
    if path.stem in OURS:
        with pytest.raises(OURS[path.stem]):
            skysub.fit_background(image, (mask, IGNORED), config)
        return
    subtracted, background = skysub.subtract_background(image, (mask, IGNORED), config)
    model = background.evaluate()
    np.testing.assert_array_equal(subtracted, image - model)
    assert subtracted.dtype == np.float32
    if "stats_image" not in answers:
        assert meta["error"], "a case without statistics is one where afw gave up"
        return
    np.testing.assert_array_equal(np.isnan(background.statistics.mean), np.isnan(answers["stats_image"]))
    np.testing.assert_array_equal(np.isnan(background.statistics.error), np.isnan(answers["stats_variance"]))
    assert ulps(background.statistics.mean, answers["stats_image"]) == 0
    assert ulps(background.statistics.error, answers["stats_variance"]) == 0
    np.testing.assert_array_equal(background.grid.x_centers, answers["xcen"])
    np.testing.assert_array_equal(background.grid.y_centers, answers["ycen"])
    if "coefs" not in answers:
        # afw cannot weight by errors outside a narrow range of scales; ours follows the image
        assert abs(np.median(model) / np.median(image) - 1) < 0.01
        return
    assert background.order == meta["order_used"]
    largest = np.abs(answers["coefs"]).max()
    np.testing.assert_allclose(background.coefficients, answers["coefs"], rtol=0, atol=1e-12 * largest)
    cuts = {
        "model": model,
        "model_s16": model[::16, ::16],
        "model_row0": model[0],
        "model_rowN": model[-1],
        "model_col0": model[:, 0],
        "model_colN": model[:, -1],
    }
    for name in cuts.keys() & answers.keys():
        assert ulps(cuts[name], answers[name]) <= 1, name


def test_every_case_is_there():
    assert len(CASES) == 42
