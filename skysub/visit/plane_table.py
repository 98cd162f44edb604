"""The mask planes that files have: what each means, what LSST calls it, and what is done with its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["KNOWN_PLANES", "PLANES", "Plane", "PlaneRole", "lsst_name", "our_name", "planes_with"]

PlaneRole = Literal[
    "no_science",
    "saturated",
    "lsst_background_ignored",
    "detected",
    "not_sky",
    "not_measured",
]
"""What is done with the pixels of a plane.

``no_science``: they say nothing about sky or sources, and `calibrate_image` leaves them out.
``saturated``: they are light, but not light that can be measured.
``lsst_background_ignored``: LSST leaves them out of a background.
``detected``: they are marked anew by every detection.
``not_sky``: they do not count in the figures of what is left of the sky (LSST's list).
``not_measured``: `reprocess_visit_image` does not measure sources on them.
"""


@dataclass(frozen=True, slots=True)
class Plane:
    """One mask plane.

    Parameters
    ----------
    name
        What afw and this package call it.
    meaning
        What is known of its pixels, as a short phrase.
    roles
        What is done with its pixels; see `PlaneRole`.
    bit
        Its bit in the masks that LSST's afw starts from; None for planes that files add.
    lsst_images_name
        What lsst.images calls it, where that is another name.
    """

    name: str
    meaning: str
    roles: tuple[PlaneRole, ...] = ()
    bit: int | None = None
    lsst_images_name: str | None = None


PLANES = (
    Plane(
        "BAD",
        "Bad pixel of the detector",
        ("no_science", "lsst_background_ignored", "not_sky", "not_measured"),
        bit=0,
    ),
    Plane("BLEED", "Bled into from a saturated source"),
    Plane("BRIGHT_OBJECT", "Near a bright object"),
    Plane("CLIPPED", "Clipped as an outlier among exposures"),
    Plane("CR", "Hit by a cosmic ray", ("no_science", "not_measured"), bit=3, lsst_images_name="COSMIC_RAY"),
    Plane("CROSSTALK", "Electronic ghost of a bright source in another amplifier", ("no_science",)),
    Plane("DETECTED", "Part of a source", ("lsst_background_ignored", "detected", "not_sky"), bit=5),
    Plane(
        "DETECTED_NEGATIVE",
        "Part of a negative source",
        ("lsst_background_ignored", "detected", "not_sky"),
        bit=6,
    ),
    Plane(
        "EDGE",
        "Too near the edge to be searched for sources",
        ("no_science", "lsst_background_ignored", "not_sky"),
        bit=4,
        lsst_images_name="DETECTION_EDGE",
    ),
    Plane("FAKE", "Part of an injected source, in older pipelines"),
    Plane("HIGH_VARIANCE", "Of unusually high variance"),
    Plane("INEXACT_PSF", "Where the PSF changes within the image"),
    Plane("INJECTED", "Part of an injected source"),
    Plane("INJECTED_CORE", "Centre of an injected source"),
    Plane("INJECTED_TEMPLATE", "Part of a source injected into the template"),
    Plane("INTRP", "Interpolated from neighbours", ("no_science",), bit=2, lsst_images_name="INTERPOLATED"),
    Plane("ITL_DIP", "In the dip beside a bright source of an ITL detector", ("no_science",)),
    Plane("NOT_DEBLENDED", "Part of a blend that was not taken apart", ("detected",)),
    Plane(
        "NO_DATA",
        "Nothing is known here",
        ("no_science", "lsst_background_ignored", "not_sky", "not_measured"),
        bit=8,
    ),
    Plane("PARTLY_VIGNETTED", "Partly vignetted"),
    Plane("REJECTED", "Rejected when exposures were combined"),
    Plane("SAT", "Saturated, or bled into", ("saturated", "not_sky"), bit=1, lsst_images_name="SATURATED"),
    Plane("SAT_TEMPLATE", "Saturated in the template"),
    Plane("SENSOR_EDGE", "At the edge of the detector"),
    Plane("SPIKE", "In a diffraction spike", ("no_science", "not_sky")),
    Plane("STREAK", "Crossed by a satellite or an airplane", ("no_science",), bit=10),
    Plane("SUSPECT", "Near saturation, or otherwise doubtful", ("saturated", "not_sky"), bit=7),
    Plane(
        "UNMASKEDNAN",
        "Not finite, without a plane that says why",
        ("no_science",),
        lsst_images_name="UNMASKED_NAN",
    ),
    Plane("VIGNETTED", "Outside the unvignetted field", ("no_science",), bit=9),
)
"""All planes that files of some layout have, by name. An image without one of them has no such pixels."""

KNOWN_PLANES = {plane.name: plane for plane in PLANES}

_OF_LSST_IMAGES = {plane.lsst_images_name: plane.name for plane in PLANES if plane.lsst_images_name}


def planes_with(*roles: PlaneRole) -> tuple[str, ...]:
    """Return the names of the planes that have any of these roles, in the order of `PLANES`."""
    unknown = set(roles) - set(get_args(PlaneRole))
    if unknown:
        raise ValueError(f"there is no role {', '.join(sorted(unknown))} of mask planes")
    return tuple(plane.name for plane in PLANES if not set(roles).isdisjoint(plane.roles))


def our_name(name: str) -> str:
    """Return what afw and this package call a plane, given its name in lsst.images or in afw."""
    return _OF_LSST_IMAGES.get(name, name)


def lsst_name(name: str) -> str:
    """Return what lsst.images calls a plane."""
    plane = KNOWN_PLANES.get(name)
    return plane.lsst_images_name if plane is not None and plane.lsst_images_name else name
