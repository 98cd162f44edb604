import pickle

import numpy as np
import pytest

import skysub
from skysub.campaign.shipped import BackgroundStep
from skysub.errors import ConfigError, InvalidImageError, MaskPlaneError
from skysub.visit.fits import decam
from skysub.visit.plane_table import KNOWN_PLANES
from skysub.visit.planes import AFW_PLANES, MaskPlanes


def test_bits_are_asked_for_by_name():
    planes = MaskPlanes({"SAT": 4, "BAD": 0})
    assert planes.bits("BAD", "SAT") == 0b10001
    assert planes.bits() == 0
    assert "SAT" in planes
    assert planes.names == ("BAD", "SAT")


def test_unknown_plane_is_named_with_those_there_are():
    with pytest.raises(MaskPlaneError, match=r"^there is no mask plane SPIKE; the planes are: BAD, SAT, "):
        AFW_PLANES.bits("SPIKE")
    with pytest.raises(KeyError):
        AFW_PLANES.bits("SPIKE")


@pytest.mark.parametrize(
    "wrong",
    [{"BAD": 0, "SAT": 0}, {"BAD": -1}, {"BAD": 63}, {"BAD": True}, {"BAD": "0"}, {"": 1}, {"BAD": 1.0}],
)
def test_planes_without_a_bit_of_their_own_are_refused(wrong):
    with pytest.raises(InvalidImageError):
        MaskPlanes(wrong)


def test_a_new_plane_takes_the_lowest_free_bit():
    planes = MaskPlanes({"BAD": 0, "SAT": 2}).with_plane("DETECTED", "SAT", "SPIKE")
    assert dict(planes) == {"BAD": 0, "SAT": 2, "DETECTED": 1, "SPIKE": 3}


def test_planes_fill_up():
    full = MaskPlanes({f"P{bit}": bit for bit in range(63)})
    with pytest.raises(InvalidImageError, match="63"):
        full.with_plane("ONE_MORE")


def test_the_type_of_a_mask_never_uses_its_sign():
    assert MaskPlanes({"A": 30}).dtype == np.int32
    assert MaskPlanes({"A": 31}).dtype == np.int64


def test_planes_never_change_and_travel():
    planes = MaskPlanes({"BAD": 0})
    with pytest.raises(AttributeError):
        planes.anything = 1
    assert pickle.loads(pickle.dumps(planes)) == planes
    assert hash(pickle.loads(pickle.dumps(planes))) == hash(planes)


def test_what_readers_name_is_known():
    assert set(decam.PLANES) <= set(KNOWN_PLANES)


@pytest.mark.parametrize(("name", "meant"), [("BADD", "BAD"), ("detected", "DETECTED"), ("SATURATED", "SAT")])
def test_settings_with_a_misspelt_plane_are_refused(name, meant):
    message = f"there is no mask plane {name}; did you mean {meant}"
    with pytest.raises(ConfigError, match=f"^ignored: {message}"):
        BackgroundStep(ignored=("BAD", name))
    for setting in ("ignored_planes", "saturated_planes"):
        with pytest.raises(ConfigError, match=f"^{setting}: {message}"):
            skysub.CalibrateImageConfig(**{setting: (name,)})


def test_settings_may_name_planes_of_ones_own():
    assert BackgroundStep(ignored=("BDA", "BAD2", "GLINT")).ignored == ("BDA", "BAD2", "GLINT")


def test_settings_take_no_word_for_a_list():
    with pytest.raises(ConfigError, match="not the word 'BAD'"):
        BackgroundStep(ignored="BAD")
