"""Models of the sky from files, whoever made them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Model", "find_models", "read_model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A model of one detector's sky."""

    visit: int
    detector: int
    model: NDArray[np.floating]
    """(ny, nx), electron per pixel."""
    uncertainty: NDArray[np.floating] | None = None
    """(ny, nx), its standard deviation, electron."""


def find_models(paths: Iterable[str | Path]) -> list[Path]:
    """Files with models among ``paths``: files as they are, and all that a folder and its subfolders hold.

    Raises
    ------
    ModelFileError
        When a path is not there, or a folder holds no model.
    """
    found: list[Path] = []
    for given in map(Path, paths):
        if given.is_dir():
            # `skysub export` writes PRODUCT/VISIT/PRODUCT_VISIT_DETECTOR.fits
            inside = sorted(path for path in given.rglob("*") if _kind(path) and path.is_file())
            if not inside:
                raise ModelFileError(
                    f"{given}: holds no model (.fits, .fits.gz, .fits.fz, .npy, .npz), nor do its subfolders"
                )
            found += inside
        elif given.is_file():
            found.append(given)
        else:
            raise ModelFileError(f"{given}: there is no such file")
    return found


def read_model(path: str | Path) -> Model:
    """Model of a file.

    ``.npy`` holds an array; ``.npz`` holds ``model`` and may hold ``uncertainty``, ``visit`` and
    ``detector``; FITS holds an image (and may hold one named UNCERTAINTY), or a BackgroundList as
    LSST writes it. Visit and detector come from there, from header cards VISIT and DETECTOR, or from
    the last two numbers of the file's name: ``model_12_3.npy`` is visit 12, detector 3.

    Raises
    ------
    ModelFileError
        When it cannot be read, holds no model, or does not tell its visit and detector.
    """
    path = Path(path)
    reader = {"npy": _read_npy, "npz": _read_npz, "fits": _read_fits}.get(_kind(path))
    if reader is None:
        raise ModelFileError(f"{path}: a model is a .fits, .fits.gz, .fits.fz, .npy or .npz file")
    try:
        parts = reader(path)
    except ModelFileError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path}: cannot be read: {error}") from error
    visit, detector = parts.get("visit"), parts.get("detector")
    if visit is None or detector is None:
        visit, detector = _numbers_in_name(path)
    model, uncertainty = parts["model"], parts.get("uncertainty")
    for name, array in (("model", model), ("uncertainty", uncertainty)):
        if array is not None and (array.ndim != 2 or array.dtype.kind not in "fiu"):
            raise ModelFileError(
                f"{path}: the {name} must be (ny, nx) numbers, not {array.dtype} {array.shape}"
            )
    return Model(visit=int(visit), detector=int(detector), model=model, uncertainty=uncertainty)


def _kind(path: Path) -> str:
    name = path.name.lower()
    if name.endswith((".fits", ".fits.gz", ".fits.fz", ".fit")):
        return "fits"
    return name.rpartition(".")[2] if name.endswith((".npy", ".npz")) else ""


def _numbers_in_name(path: Path) -> tuple[int, int]:
    numbers = re.findall(r"\d+", path.name.split(".")[0])
    if len(numbers) < 2:
        raise ModelFileError(
            f"{path}: does not tell its visit and detector; name it like model_VISIT_DETECTOR{path.suffix}"
        )
    return int(numbers[-2]), int(numbers[-1])


def _read_npy(path: Path) -> dict[str, Any]:
    return {"model": np.load(path, allow_pickle=False)}


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        if "model" not in arrays:
            raise ModelFileError(
                f"{path}: holds {', '.join(arrays.files) or 'nothing'}, but no array 'model'"
            )
        wanted = ("model", "uncertainty", "visit", "detector")
        return {name: arrays[name] for name in wanted if name in arrays}


def _read_fits(path: Path) -> dict[str, Any]:
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        parts: dict[str, Any] = {
            key.lower(): hdu.header[key]
            for hdu in reversed(hdus)
            for key in ("VISIT", "DETECTOR")
            if key in hdu.header
        }
        images = [hdu for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS") == 2]
        if not images:
            raise ModelFileError(f"{path}: holds no two-dimensional image")
        if "INTERPSTYLE" in hdus[0].header:
            from skysub.visit.fits.background import read_background

            return parts | {"model": read_background(path).evaluate()}
        by_name = {hdu.name: hdu for hdu in images}
        model = by_name.get("MODEL", images[0])
        parts["model"] = _native(model.data)
        if "UNCERTAINTY" in by_name:
            parts["uncertainty"] = _native(by_name["UNCERTAINTY"].data)
    return parts


def _native(data: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(data, data.dtype.newbyteorder("="))
