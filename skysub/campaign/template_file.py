"""Templates as a FITS file: tables of visits, detectors and amplifiers, and sky frames as images."""

from __future__ import annotations

import io
import re
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.store.address import place_at
from skysub.campaign.store.storage_path import writing
from skysub.errors import OutputError, TemplatesError
from skysub.pipeline.joint.templates import DetectorTemplate, StepTemplate, VisitTemplates
from skysub.visit.fits.checksum import data_sum, fold

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from skysub.campaign.store.storage_path import StoragePath

__all__ = ["latest_files", "read_templates", "templates_of_bytes", "write_templates"]

FORMAT = "skysub-templates-1"
_NAMED = re.compile(r"templates-(?P<band>.+)-(?P<date>\d{8}(T\d{6})?)\.fits")


def write_templates(
    templates: VisitTemplates, output: str | os.PathLike[str], *, overwrite: bool = False
) -> str:
    """Write templates to a FITS file, which appears when it is complete.

    Parameters
    ----------
    output
        A path or ``s3://`` address that ends in ``.fits``, or a folder: then the file is
        ``templates-BAND-YYYYMMDD.fits`` there, by today's date (UTC); a band that is unknown is ``any``.
    overwrite
        Replace a file that is there already.

    Returns
    -------
    path
        Of the file.

    Raises
    ------
    OutputError
        When it cannot be written, or is there already.
    """
    text = str(output)
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    place = place_at(text)
    if not text.endswith(".fits"):
        band = re.sub(r"[^A-Za-z0-9_.+]", "_", templates.band) or "any"
        place.check_folder()
        place /= f"templates-{band}-{made[:10].replace('-', '')}.fits"
    if not overwrite and place.exists():
        raise OutputError(f"{place} is there already: name another, or say --overwrite")
    with writing(place):
        place.put(_bytes(templates, {"made": made, **templates.provenance}))
    return str(place)


def read_templates(path: str | os.PathLike[str]) -> VisitTemplates:
    """Read templates that `write_templates` wrote, from a path or ``s3://`` address.

    Raises
    ------
    TemplatesError
        When there is no such file, or it is no such file, or it is damaged; the message says which.
    """
    place = place_at(path)
    try:
        data = place.read()
    except OSError as error:
        raise TemplatesError(f"{place}: templates cannot be read: {error.strerror or error}") from None
    if data is None:
        raise TemplatesError(f"{place}: there is no such file of templates; `skysub templates` makes one")
    return templates_of_bytes(data, str(place))


def latest_files(folder: StoragePath) -> list[StoragePath]:
    """Of each band the newest file of templates in a folder, by the dates in their names."""
    newest: dict[str, tuple[str, str]] = {}
    for name in sorted(folder.names()):
        found = _NAMED.fullmatch(name)
        if found is not None:
            newest[found["band"]] = max(newest.get(found["band"], ("", "")), (found["date"], name))
    return [folder / name for _, name in (newest[band] for band in sorted(newest))]


def templates_of_bytes(data: bytes, path: str) -> VisitTemplates:
    """Read templates from a file's content; ``path`` is for messages.

    Raises
    ------
    TemplatesError
        When it is no such file, or damaged.
    """
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with fits.open(io.BytesIO(data), memmap=False, lazy_load_hdus=False) as hdus:
                _check_format(hdus[0].header)
                _check_sums(hdus, data)
                return _templates(hdus, path.rpartition("/")[2])
    except TemplatesError as error:
        raise TemplatesError(f"{path}: {error}") from None
    # astropy has many kinds of errors for what is no FITS file
    except Exception as error:
        raise TemplatesError(
            f"{path}: is no sound file of templates ({type(error).__name__}: {error}); make it again by "
            "`skysub templates`"
        ) from error


def _check_format(header: Any) -> None:
    found = header.get("FORMAT")
    if found != FORMAT:
        raise TemplatesError(
            f"its FORMAT is {found!r}, not {FORMAT!r}: it holds no templates that are known here"
        )


def _check_sums(hdus: Any, data: bytes) -> None:
    """Refuse a file whose bytes are not those that were written: each HDU has a sum with all bits set."""
    end = 0
    for hdu in hdus:
        place = hdu.fileinfo()
        start, end = int(place["hdrLoc"]), int(place["datLoc"]) + int(place["datSpan"])
        if end > len(data) or fold(data_sum(data[start:end])) not in {0, 0xFFFFFFFF}:
            raise ValueError(f"the checksum of {hdu.name or 'the primary HDU'} does not agree")
    if end != len(data) or "PROVENANCE" not in hdus or len(hdus) != int(hdus[0].header["NHDUS"]):
        raise ValueError("the file is longer or shorter than it was written")


def _bytes(templates: VisitTemplates, provenance: Mapping[str, str]) -> bytes:
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    primary.header.update({
        "FORMAT": FORMAT, "BAND": templates.band, "CAMERA": templates.camera, "BUNIT": templates.unit,
        "NVISITS": len(templates.visits), "NFRAMES": templates.frames,
    })  # fmt: skip
    hdus: list[Any] = [primary]
    visits = len(templates.visits)
    strengths = templates.strengths if templates.strengths is not None else np.zeros((visits, 0))
    levels = templates.levels if templates.levels is not None else np.full(visits, np.nan)
    hdus.append(
        _table(
            "VISITS",
            {"visit": np.array(templates.visits, np.int64), "sky": levels}
            | {f"strength_{k + 1}": strengths[:, k] for k in range(templates.frames)},
        )
    )
    numbers = sorted(templates.detectors)
    each = [templates.detectors[n] for n in numbers]
    shapes = np.array([one.shape or (0, 0) for one in each], np.int64).reshape(-1, 2)
    covariance = np.array([np.zeros((2, 2)) if o.covariance is None else o.covariance for o in each])
    hdus.append(
        _table(
            "DETECTORS",
            {
                "detector": np.array(numbers, np.int64),
                "ny": shapes[:, 0],
                "nx": shapes[:, 1],
                "constant": np.array([one.constant for one in each]),
                "proportional": np.array([one.proportional for one in each]),
                "deviation": np.array([one.deviation for one in each]),
                **_covariance(covariance.reshape(-1, 2, 2)),
            },
        )
    )
    stepped = [(n, one.steps) for n, one in zip(numbers, each, strict=True) if one.steps is not None]
    if stepped:
        boxes = np.concatenate([np.array(steps.boxes, np.int64) for _, steps in stepped])
        terms = np.concatenate([steps.terms for _, steps in stepped])
        hdus.append(
            _table(
                "AMPLIFIERS",
                {
                    "detector": np.repeat([n for n, _ in stepped], [len(s.boxes) for _, s in stepped]),
                    **{name: boxes[:, k] for k, name in enumerate(("y0", "y1", "x0", "x1"))},
                    "constant": terms[:, 0],
                    "proportional": terms[:, 1],
                    "deviation": np.concatenate([steps.deviation for _, steps in stepped]),
                    **_covariance(np.concatenate([steps.covariance for _, steps in stepped])),
                },
            )
        )
    words = {**{f"flag {name}": text for name, text in templates.flags.items()}, **provenance}
    hdus.append(
        _table("PROVENANCE", {"name": np.array(list(words)), "value": np.array(list(words.values()))})
    )
    for n, one in zip(numbers, each, strict=True):
        if one.frames is not None:
            image = fits.ImageHDU(one.frames, name=f"FRAMES_{n}")
            errors = np.zeros(len(one.frames)) if one.frame_errors is None else one.frame_errors
            image.header.update({"DETECTOR": n} | {f"ERROR{k + 1}": float(e) for k, e in enumerate(errors)})
            hdus.append(image)
    primary.header["NHDUS"] = len(hdus)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=fits.verify.VerifyWarning)
        fits.HDUList(hdus).writeto(out, checksum=True)
    return out.getvalue()


def _table(name: str, columns: Mapping[str, NDArray[Any]]) -> Any:
    from astropy.io import fits
    from astropy.table import Table

    return fits.table_to_hdu(Table(dict(columns)), name=name)


def _covariance(covariance: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {
        "var_constant": covariance[:, 0, 0].copy(),
        "cov": covariance[:, 0, 1].copy(),
        "var_proportional": covariance[:, 1, 1].copy(),
    }


def _templates(hdus: Any, name: str) -> VisitTemplates:
    header = hdus[0].header
    frames = int(header["NFRAMES"])
    visits, detectors = hdus["VISITS"].data, hdus["DETECTORS"].data
    steps = _steps(hdus["AMPLIFIERS"].data) if "AMPLIFIERS" in hdus else {}
    made = {}
    for row in detectors:
        number = int(row["detector"])
        pictures = errors = None
        if f"FRAMES_{number}" in hdus:
            image = hdus[f"FRAMES_{number}"]
            pictures = np.ascontiguousarray(image.data, np.float32)
            errors = np.array([float(image.header[f"ERROR{k + 1}"]) for k in range(frames)])
            if pictures.ndim != 3 or len(pictures) != frames or not np.isfinite(pictures).all():
                raise TemplatesError(
                    f"the sky frames of detector {number} have the shape {pictures.shape}, or are not "
                    f"finite; there should be {frames}"
                )
        made[number] = DetectorTemplate(
            shape=(int(row["ny"]), int(row["nx"])) if row["ny"] else None,
            constant=float(row["constant"]),
            proportional=float(row["proportional"]),
            covariance=_matrix(row),
            deviation=float(row["deviation"]),
            steps=steps.get(number),
            frames=pictures,
            frame_errors=errors,
        )
    words = {str(row["name"]): str(row["value"]) for row in hdus["PROVENANCE"].data}
    strengths = [np.asarray(visits[f"strength_{k + 1}"], np.float64) for k in range(frames)]
    return VisitTemplates(
        detectors=made,
        visits=tuple(int(visit) for visit in visits["visit"]),
        frames=frames,
        strengths=np.stack(strengths, axis=1) if strengths else np.zeros((len(visits), 0)),
        levels=np.asarray(visits["sky"], np.float64),
        unit=str(header["BUNIT"]),
        band=str(header["BAND"]),
        camera=str(header["CAMERA"]),
        flags={key.removeprefix("flag "): text for key, text in words.items() if key.startswith("flag ")},
        provenance={key: text for key, text in words.items() if not key.startswith("flag ")},
        name=name,
    )


def _matrix(row: Any) -> NDArray[np.float64]:
    a, b, c = (float(row[name]) for name in ("var_constant", "cov", "var_proportional"))
    return np.array([[a, b], [b, c]])


def _steps(rows: Any) -> dict[int, StepTemplate]:
    found = {}
    for number in sorted({int(n) for n in rows["detector"]}):
        own = rows[rows["detector"] == number]
        found[number] = StepTemplate(
            boxes=tuple((int(row["y0"]), int(row["y1"]), int(row["x0"]), int(row["x1"])) for row in own),
            terms=np.stack(
                [np.asarray(own[name], np.float64) for name in ("constant", "proportional")], axis=1
            ),
            covariance=np.stack([_matrix(row) for row in own]),
            deviation=np.asarray(own["deviation"], np.float64),
        )
    return found
