"""Visits of which only what a joint fit needs is kept: statistics, cells, and a truth made when asked for.

A detector of 4000 x 4072 pixels takes about 2 MB, and simulating and calibrating it some ten seconds, once.
"""

from __future__ import annotations

import dataclasses
import pickle
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import skysub
from skysub.pipeline.templates.cells import SkyCells, cells_of
from skysub.simulation.detector import simulate_detector
from skysub.simulation.metrics import good_pixels
from skysub.simulation.scene import Electronics, Scene, named_scene
from skysub.simulation.sky import SKY_PLANES, sky_planes
from skysub.simulation.truth import Truth

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1


@dataclass(frozen=True)
class Calibrated:
    """One detector of one visit."""

    record: skysub.DetectorRecord
    cells: SkyCells
    truth: Truth


def scene_of(name: str, detector: int) -> Scene:
    """Scene of a name: those of `skysub.simulation`, and

    offsets        2 e- between detectors of a quiet sky, anew in every visit
    fixed          the same, but each detector keeps its own (see `fixed_offset`)
    one:R          a galaxy of that effective radius on the first detector alone, else quiet
    one_offsets:R, one_fixed:R   the same with such offsets
    """
    kind, _, number = name.partition(":")
    if kind.startswith("one"):
        scene = named_scene(f"galaxy:{number}" if detector == 0 else "quiet")
    else:
        scene = named_scene("quiet" if kind in {"offsets", "fixed"} else name)
    if kind.endswith("offsets"):
        scene = dataclasses.replace(scene, electronics=Electronics(detector_offset=2.0))
    return scene


def fixed_offset(name: str, seed: int, visit: int, detector: int) -> float:
    """What a detector adds in every visit (2 e- among detectors), and 0.1 e- of its own in each; else 0."""
    if not name.partition(":")[0].endswith("fixed"):
        return 0.0
    own = np.random.default_rng([seed, detector, 77]).standard_normal()
    return float(2.0 * own + 0.1 * np.random.default_rng([seed, detector, visit, 78]).standard_normal())


class _Planes(Mapping[str, np.ndarray]):
    """Planes of a truth: those of the sky made anew, of sources where they are, and how much is faint."""

    def __init__(self, held: dict) -> None:
        self._held = held
        self._sky: dict[str, np.ndarray] | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        held, shape = self._held, self._held["observation"].shape
        if name in SKY_PLANES:
            if self._sky is None:
                self._sky = sky_planes(held["scene"], held["observation"], seed=held["seed"])
                self._sky["detector_offset"] = self._sky["detector_offset"] + np.float32(held["offset"])
            return self._sky[name]
        if name == "sources":
            lit = np.unpackbits(
                np.frombuffer(zlib.decompress(held["lit"]), np.uint8), count=shape[0] * shape[1]
            )
            return lit.reshape(shape).astype(np.float32) * np.float32(1e6)
        return np.broadcast_to(np.float32(held["faint"] if name == "faint_sources" else 0), shape)

    def __iter__(self) -> Iterator[str]:
        return iter((*SKY_PLANES, "sources", "faint_sources", "aureoles", "cosmic_rays"))

    def __len__(self) -> int:
        return len(SKY_PLANES) + 4


def calibrated(
    name: str, seed: int, visit: int, detector: int, *, shape: tuple[int, int], cache: Path
) -> Calibrated:
    """Record, cells and truth of a detector, from the cache where it has them."""
    folder = cache / f"{name.replace(':', '_')}-{shape[0]}x{shape[1]}-{seed}-v{VERSION}"
    path = folder / f"{visit}-{detector}.pickle"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scene = scene_of(name, detector)
        offset = fixed_offset(name, seed, visit, detector)
        image, true = simulate_detector(scene, visit, detector, seed=seed, shape=shape)
        image.image[:] += np.float32(offset)
        config = dataclasses.replace(skysub.CalibrateImageConfig(), cosmic_rays=None, psf=None)
        result = skysub.calibrate_image(image, config, overwrite=True)
        held = {
            "scene": scene,
            "seed": seed,
            "observation": true.observation,
            # all that scores look at
            "catalog": true.catalog[
                (true.catalog["type"] == "probe_galaxy") | (true.catalog["magnitude"] < 14.1)
            ],
            "offset": offset,
            "faint": float(true.planes["faint_sources"].mean(dtype=np.float64)),
            "lit": zlib.compress(np.packbits(~good_pixels(true)).tobytes(), 1),
        }
        kept = (skysub.record_of(result), cells_of(result.preliminary_visit_image), held)
        part = path.with_suffix(".part")
        part.write_bytes(pickle.dumps(kept))
        part.rename(path)
    record, cells, held = pickle.loads(path.read_bytes())
    truth = Truth(
        scene=held["scene"],
        seed=seed,
        observation=held["observation"],
        planes=_Planes(held),
        catalog=held["catalog"],
        unusable=np.broadcast_to(np.bool_(False), shape),
    )
    return Calibrated(record, cells, truth)


def visit_of(
    name: str, seed: int, visit: int, detectors: int, *, shape: tuple[int, int], cache: Path
) -> dict[int, Calibrated]:
    """All detectors of a visit, by number."""
    return {n: calibrated(name, seed, visit, n, shape=shape, cache=cache) for n in range(detectors)}
