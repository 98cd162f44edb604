"""Small objects of arrays (PSF, aperture correction) as text of a marker, and back; nothing is unpickled."""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

import numpy as np

from skysub.campaign.store.backgrounds import packed, unpacked
from skysub.errors import NotDoneError

__all__ = ["object_of", "text_of"]

_HOMES = {
    "ApertureCorrection": "skysub.pipeline.characterise",
    "Choice": "skysub.pipeline.joint.choice",
    "FaintLight": "skysub.background.faint_light",
    "Moments": "skysub.psf.stars",
    "MoffatPsf": "skysub.psf.model",
    "PsfStars": "skysub.psf.model",
    "SkyFacts": "skysub.pipeline.joint.record",
    "Spline": "skysub.pipeline.joint.spline",
    "VisitSky": "skysub.pipeline.visit_background",
    "Votes": "skysub.pipeline.joint.votes",
}
"""Classes that may stand in a marker, and their modules."""


def text_of(value: Any, classes: tuple[type, ...] = ()) -> Any:
    """Return a dataclass of arrays, numbers and other such dataclasses, ready for JSON.

    ``classes``: those that it may consist of beside skysub's own.

    Raises
    ------
    TypeError
        When it is of a class that markers do not have.
    """
    named = type(value).__name__ in _HOMES or type(value) in classes
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and named:
        fields = {
            field.name: text_of(getattr(value, field.name), classes) for field in dataclasses.fields(value)
        }
        return {"class": type(value).__name__, "fields": fields}
    if isinstance(value, np.ndarray):
        return packed(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, (tuple, list)):
        return [text_of(each, classes) for each in value]
    if isinstance(value, dict):
        return {"items": [[text_of(key, classes), text_of(each, classes)] for key, each in value.items()]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a marker has no place for {type(value).__name__}")


def object_of(text: Any, classes: tuple[type, ...] = ()) -> Any:
    """Return what `text_of` was given; lists come back as tuples.

    Raises
    ------
    NotDoneError
        When a later version of the package wrote a class that this one does not have.
    """
    if isinstance(text, list):
        return tuple(object_of(each, classes) for each in text)
    if not isinstance(text, dict):
        return text
    if "zlib" in text:
        return unpacked(text)
    if "float" in text:
        return float(text["float"])
    if "items" in text:
        return {object_of(key, classes): object_of(each, classes) for key, each in text["items"]}
    name = text["class"]
    fields = {key: object_of(value, classes) for key, value in text["fields"].items()}
    own = next((each for each in classes if each.__name__ == name), None)
    try:
        if own is not None:
            return own(**fields)
        return getattr(importlib.import_module(_HOMES[name]), name)(**fields)
    except (KeyError, AttributeError, TypeError) as error:
        raise NotDoneError(f"a {name} of another version of skysub cannot be read: {error}") from None
