"""Whole visits into a folder: images as afw lays them out, and their truth beside them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from skysub.errors import OutputError
from skysub.simulation.observation import observe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from skysub.simulation.scene import Scene

__all__ = ["Simulation", "simulate_visits"]

Compression = Literal["none", "lossless", "lossy16"]


@dataclass(frozen=True, slots=True)
class Simulation:
    """What is to be simulated, and where it goes."""

    scene: Scene
    output: Path
    visits: int = 1
    detectors: int = 1
    shape: tuple[int, int] = (4000, 4072)
    """(ny, nx), pixel."""
    seed: int = 1
    band: str | None = None
    """None: the scene's own."""
    compression: Compression = "none"
    """Of the images; truth is always compressed."""

    def image_path(self, visit: int, detector: int) -> Path:
        """``raw/post_isr_image_VISIT_DETECTOR.fits``."""
        return self.output / "raw" / f"post_isr_image_{visit}_{detector}.fits"

    def truth_path(self, visit: int, detector: int) -> Path:
        """``truth/truth_VISIT_DETECTOR.zarr``."""
        return self.output / "truth" / f"truth_{visit}_{detector}.zarr"


def simulate_visits(
    simulation: Simulation,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Simulate visits 1, 2, ... and detectors 0, 1, ... into a folder.

    Parameters
    ----------
    workers
        Processes of a local Dask cluster; 1 works in this process. The files are the same.
    overwrite
        Replace a simulation that is already there; without it that is an error.
    progress
        Called with the number of detectors done and the number of all, from this thread.

    Returns
    -------
    images
        Paths of the images, by visit and detector.

    Raises
    ------
    ConfigError
        When a number is out of range.
    OutputError
        When the folder holds a simulation already, or cannot be written.
    """
    units = [
        (visit, detector)
        for visit in range(1, simulation.visits + 1)
        for detector in range(simulation.detectors)
    ]
    if units:
        # what cannot be simulated is refused before anything is written or removed
        observe(
            simulation.scene,
            *units[0],
            seed=simulation.seed,
            shape=simulation.shape,
            band=simulation.band or simulation.scene.band,
        )
    _prepare(simulation, overwrite=overwrite)
    for done, _ in enumerate(_each(simulation, units, workers), start=1):
        if progress is not None:
            progress(done, len(units))
    return [simulation.image_path(*unit) for unit in units]


def simulate_one(simulation: Simulation, visit: int, detector: int) -> None:
    """Simulate one detector and write its two files; each appears whole or not at all."""
    from skysub.simulation.detector import simulate_detector
    from skysub.simulation.truth import write_truth
    from skysub.visit.fits.write import write_visit_image

    visit_image, truth = simulate_detector(
        simulation.scene,
        visit,
        detector,
        seed=simulation.seed,
        shape=simulation.shape,
        band=simulation.band,
    )
    path = simulation.image_path(visit, detector)
    truth_path = simulation.truth_path(visit, detector)
    unfinished = truth_path.with_suffix(".part")
    write_truth(truth, unfinished, image_path=f"../raw/{path.name}")
    shutil.rmtree(truth_path, ignore_errors=True)
    unfinished.rename(truth_path)
    write_visit_image(visit_image, path, compression=simulation.compression)


def _prepare(simulation: Simulation, *, overwrite: bool) -> None:
    output = simulation.output
    try:
        for name in ("raw", "truth"):
            folder = output / name
            if folder.is_dir() and any(folder.iterdir()):
                if not overwrite:
                    raise OutputError(f"{folder} is not empty; choose another folder, or --overwrite it")
                # only what a simulation writes: a folder given by mistake keeps its own files
                for path in folder.iterdir():
                    if path.match("post_isr_image_*.fits"):
                        path.unlink()
                    elif path.match("truth_*.zarr") or path.match("truth_*.part"):
                        shutil.rmtree(path)
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{output} cannot be written: {error}") from error


def _each(simulation: Simulation, units: list[tuple[int, int]], workers: int) -> Iterator[None]:
    if workers == 1:
        for unit in units:
            simulate_one(simulation, *unit)
            yield
        return
    from dask.distributed import Client, LocalCluster, as_completed

    # distributed carries no types
    local: Any = LocalCluster
    connect: Any = Client
    completed: Any = as_completed
    # Dask's server of pages is there in any case: for this machine alone, at a port that is free
    quiet = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    with (
        local(n_workers=min(workers, len(units)), threads_per_worker=1, host="127.0.0.1", **quiet) as cluster,
        connect(cluster) as client,
    ):
        for future in completed(
            [client.submit(simulate_one, simulation, *unit, pure=False) for unit in units]
        ):
            future.result()
            future.release()
            yield
