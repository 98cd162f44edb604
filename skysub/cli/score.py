"""``skysub score``: how close models of the sky came to a simulation's truth."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from skysub.errors import ModelFileError

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

    from skysub.simulation.models import Model
    from skysub.simulation.truth import Truth

__all__ = ["add_arguments", "run"]

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument(
        "models",
        metavar="MODELS",
        nargs="+",
        type=Path,
        help="FITS, .npy or .npz files, or folders of them (subfolders as well), electron per pixel; visit "
        "and detector are in the header, in the arrays, or the last two numbers of the name",
    )
    parser.add_argument(
        "--truth", required=True, type=Path, help="the folder that 'skysub simulate' wrote, or its truth"
    )
    parser.add_argument(
        "--pictures",
        metavar="FOLDER",
        type=Path,
        help="draw image, true sky, model and their difference, a PNG per detector (needs matplotlib)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Score and print."""
    from skysub.simulation.models import find_models
    from skysub.simulation.pictures import draw_scene
    from skysub.simulation.report import score_table
    from skysub.simulation.score import score_visits
    from skysub.simulation.truth import read_truths

    truths = read_truths(options.truth)
    paths: dict[tuple[int, int], Path] = {}
    for path in find_models(options.models):
        model = _model(path)
        key = model.visit, model.detector
        if key not in truths:
            known = ", ".join(f"{visit}/{detector}" for visit, detector in sorted(truths))
            raise ModelFileError(
                f"{path}: is of visit {key[0]} detector {key[1]}, which has no truth; there is: {known}"
            )
        if key in paths:
            raise ModelFileError(
                f"{path} and {paths[key]} are both of visit {key[0]} detector {key[1]}; score them one by one"
            )
        paths[key] = path
    folder = options.truth / "truth" if (options.truth / "truth").is_dir() else options.truth
    models, images = _Models(paths), _Images(paths, truths, folder)
    scores, total = score_visits(models, truths, uncertainties=_Uncertainties(paths), images=images)
    if options.pictures is not None:
        options.pictures.mkdir(parents=True, exist_ok=True)
        for key, values in models.items():
            image = images[key]
            if image is not None:
                path = options.pictures / f"score_{key[0]}_{key[1]}.png"
                draw_scene(image, truths[key], values, path)
    if options.json:
        print(
            json.dumps({"detectors": [score.to_dict() for score in scores], "all": total.to_dict()}, indent=2)
        )
    else:
        print(score_table(scores, total))
    return 0


@functools.lru_cache(maxsize=1)
def _model(path: Path) -> Model:
    from skysub.simulation.models import read_model

    return read_model(path)


class _Files(Mapping[tuple[int, int], T]):
    """Arrays by (visit, detector), read when asked for: a campaign's models do not fit into memory."""

    def __init__(self, paths: Mapping[tuple[int, int], Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


class _Models(_Files["NDArray[np.floating]"]):
    def __getitem__(self, key: tuple[int, int]) -> NDArray[np.floating]:
        return _model(self._paths[key]).model


class _Uncertainties(_Files["NDArray[np.floating] | None"]):
    def __getitem__(self, key: tuple[int, int]) -> NDArray[np.floating] | None:
        return _model(self._paths[key]).uncertainty


class _Images(_Files["NDArray[np.floating] | None"]):
    """Images of a simulation; None where they were moved away, which leaves M8 out."""

    def __init__(
        self, paths: Mapping[tuple[int, int], Path], truths: Mapping[tuple[int, int], Truth], folder: Path
    ) -> None:
        super().__init__(paths)
        self._truths = truths
        self._folder = folder

    def __getitem__(self, key: tuple[int, int]) -> NDArray[np.floating] | None:
        from skysub.visit.fits.read import read_visit_image

        path = self._folder / self._truths[key].image_path
        return read_visit_image(path).image if path.is_file() else None
