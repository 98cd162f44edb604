"""Which pixels which amplifier read: from headers, from a table of cameras, or as a user says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from skysub.background.amplifiers import Amplifier, amplifier_grid, do_tile
from skysub.errors import ConfigError, LayoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from skysub.visit.fits.cards import Cards
    from skysub.visit.fits.header import VisitHeader

__all__ = ["CAMERAS", "amplifier_cards", "amplifiers_as_given", "check_amplifiers", "find_amplifiers"]

CAMERAS: dict[str, tuple[tuple[int, int], tuple[tuple[int, int], ...]]] = {
    r"(?i)lsst|latiss": ((2, 8), ((4000, 4072), (4004, 4096))),
    r"(?i)decam": ((1, 2), ((4096, 2048),)),
    r"(?i)hsc|hyper suprime": ((1, 4), ((4176, 2048),)),
    r"(?i)sdss": ((1, 2), ((1489, 2048),)),
}
"""By a pattern of INSTRUME (or the name of the layout): rows and columns of amplifiers, and the shapes
(ny, nx) of the camera's detectors that these divide evenly. LSST: ITL and E2V sensors; DECam: Flaugher et al.
2015, AJ 150, 150; HSC: Miyazaki et al. 2018, PASJ 70, S1; SDSS: Gunn et al. 1998, AJ 116, 3040."""

_FAMILIES = ("AMPSEC", "CCDSEC", "DATASEC", "TRIMSEC", "DETSEC")
_GRID = re.compile(r"\s*(\d{1,3})\s*[xX]\s*(\d{1,3})\s*$")
_MOST = 99
_LONGEST_NAME = 30


def find_amplifiers(
    header: VisitHeader, given: str | Mapping[str, str] | None = None
) -> tuple[Amplifier, ...]:
    """Amplifiers of an image, in its own pixels; empty where they are not known.

    What the user has given comes first; then header cards of the families AMPSEC, CCDSEC, DATASEC, TRIMSEC
    and DETSEC with a letter or a number behind them (DECam's DATASECA and DATASECB): the first family whose
    sections tile the image, as they stand, from the detector's origin, or from their own corner; then
    `CAMERAS`.

    Raises
    ------
    LayoutError
        When amplifiers that the user has given do not tile the image.
    """
    if given is not None:
        return amplifiers_as_given(given, header.who, header.shape, header.xy0)
    for family in _FAMILIES:
        found = _of_cards(header.cards, family, header.shape, header.xy0)
        if found:
            return found
    instrument = header.cards.get("INSTRUME")
    names = f"{instrument if isinstance(instrument, str) else ''} {header.layout.split(' ')[0]}"
    if header.layout.startswith("LSST"):
        # the layout is used by other cameras as well
        names = instrument if isinstance(instrument, str) else ""
    for pattern, ((rows, columns), shapes) in CAMERAS.items():
        if re.search(pattern, names):
            return _of_camera(rows, columns, shapes, header.shape, header.xy0)
    return ()


def check_amplifiers(given: str | Mapping[str, str]) -> None:
    """Refuse what no user can mean by amplifiers.

    Raises
    ------
    ConfigError
        When it is neither ``"ROWSxCOLUMNS"`` nor sections by name.
    """
    if isinstance(given, str):
        if _GRID.match(given) is None or 0 in _grid_of(given):
            raise ConfigError(
                f"amplifiers must be rows x columns, as in '2x8', or sections by name, not {given!r}"
            )
        return
    if not given:
        raise ConfigError("amplifiers has no section; leave it out where amplifiers are not known")
    if len(given) > _MOST:
        raise ConfigError(f"amplifiers has {len(given)} sections; {_MOST} at most are allowed")
    for name, section in given.items():
        Amplifier.of_section(str(name), str(section))


def amplifiers_as_given(
    given: str | Mapping[str, str], who: str, shape: tuple[int, int], xy0: tuple[int, int]
) -> tuple[Amplifier, ...]:
    """Amplifiers of an image of ``shape`` (ny, nx) as a user has said them.

    Parameters
    ----------
    given
        ``"2x8"``: rows and columns that divide the image evenly; or sections of the detector by name, of
        which the image, whose first pixel is ``xy0``, may be a part.

    Raises
    ------
    LayoutError
        When they do not tile the image.
    """
    if isinstance(given, str):
        rows, columns = _grid_of(given)
        try:
            return amplifier_grid(shape, rows=rows, columns=columns)
        except ConfigError as error:
            raise LayoutError(f"{who}: amplifiers={given!r}: {error}") from None
    boxes = [Amplifier.of_section(str(name), str(section)) for name, section in given.items()]
    found = _moved(boxes, xy0, shape)
    if not do_tile(found, shape):
        named = ", ".join(f"{a.name} {a.section}" for a in boxes)
        raise LayoutError(
            f"{who}: the amplifiers {named} do not tile this image of {shape[1]} columns and {shape[0]} rows "
            f"that begins at pixel x={xy0[0]}, y={xy0[1]} of the detector"
        )
    return found


def amplifier_cards(amplifiers: Iterable[Amplifier]) -> dict[str, str]:
    """Cards AMPNAMn and AMPSECn that `find_amplifiers` reads again."""
    values = {}
    for number, amplifier in enumerate(amplifiers, 1):
        name = amplifier.name.encode("ascii", "replace").decode("ascii")[:_LONGEST_NAME]
        values[f"AMPNAM{number:02d}"] = name or f"{number:02d}"
        values[f"AMPSEC{number:02d}"] = amplifier.section
    return values


def _grid_of(given: str) -> tuple[int, int]:
    found = _GRID.match(given)
    assert found is not None
    return int(found[1]), int(found[2])


def _of_cards(
    cards: Cards, family: str, shape: tuple[int, int], xy0: tuple[int, int]
) -> tuple[Amplifier, ...]:
    boxes: list[Amplifier] = []
    for keyword in cards.keywords(family):
        suffix = keyword[len(family) :]
        section = cards.get(keyword)
        if not re.fullmatch(r"_?([A-Z]|\d{1,2})", suffix) or not isinstance(section, str):
            continue
        name = cards.get(f"AMPNAM{suffix}") or cards.get(f"AMPNAME{suffix}") or suffix.lstrip("_")
        if any(name == other.name for other in boxes):
            name = suffix.lstrip("_")
        try:
            boxes.append(Amplifier.of_section(str(name), section))
        except ConfigError:
            continue
    if len(boxes) < 2:
        return ()
    corner = min(a.x[0] for a in boxes), min(a.y[0] for a in boxes)
    # only the detector's own coordinates may go on beyond the image
    for origin, cut in (((0, 0), False), (xy0, True), (corner, False)):
        found = _moved(boxes, origin, shape)
        whole = [a.shape for a in found] == [a.shape for a in boxes]
        if (cut or whole) and do_tile(found, shape):
            return found
    return ()


def _of_camera(
    rows: int,
    columns: int,
    shapes: tuple[tuple[int, int], ...],
    shape: tuple[int, int],
    xy0: tuple[int, int],
) -> tuple[Amplifier, ...]:
    x0, y0 = xy0
    fits = [
        (ny, nx) for ny, nx in shapes if x0 >= 0 and y0 >= 0 and y0 + shape[0] <= ny and x0 + shape[1] <= nx
    ]
    whole = [each for each in fits if each == shape]
    # a part of a detector does not tell which of several kinds it is
    chosen = whole or (fits if len(shapes) == 1 else [])
    if not chosen:
        return ()
    return _moved(amplifier_grid(chosen[0], rows=rows, columns=columns), xy0, shape)


def _moved(
    boxes: Iterable[Amplifier], origin: tuple[int, int], shape: tuple[int, int]
) -> tuple[Amplifier, ...]:
    """Boxes in the pixels of an image whose first pixel is ``origin`` (x, y), cut at its edges."""
    found = []
    for each in boxes:
        y = max(0, each.y[0] - origin[1]), min(shape[0], each.y[1] - origin[1])
        x = max(0, each.x[0] - origin[0]), min(shape[1], each.x[1] - origin[0])
        if y[0] < y[1] and x[0] < x[1]:
            found.append(Amplifier(each.name, y=y, x=x))
    return tuple(found)
