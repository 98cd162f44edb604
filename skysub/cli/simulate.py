"""``skysub simulate``: visits with known truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from skysub.cli.progress import Progress
from skysub.errors import ConfigError
from skysub.simulation.files import Simulation, simulate_visits
from skysub.simulation.scene import BANDS, SCENES, named_scene

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "scenes:\n" + "\n".join(f"  {name:<12} {text}" for name, (_, _, text) in SCENES.items())
    parser.add_argument("output", metavar="OUT", type=Path, help="folder for OUT/raw and OUT/truth")
    parser.add_argument("--visits", type=_count, default=1, help="visits 1, 2, ... (default: 1)")
    parser.add_argument(
        "--detectors",
        type=_count,
        default=1,
        help="detectors 0, 1, ..., which form a compact block on the focal plane (default: 1)",
    )
    parser.add_argument(
        "--shape", default="4000x4072", help="rows x columns of a detector, pixel (default: 4000x4072)"
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bits (default: 1)")
    parser.add_argument("--band", choices=list(BANDS), help="default: r, and z for the scene 'fringes'")
    parser.add_argument(
        "--scene", default="quiet", metavar="NAME[:NUMBER]", help="one of those below (default: quiet)"
    )
    parser.add_argument("--workers", type=_count, default=1, help="processes to share the work (default: 1)")
    parser.add_argument(
        "--compression",
        choices=("none", "lossless", "lossy16"),
        default="none",
        help="of the images; 'none' is the fastest to write and read (default)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a simulation that is there")


def run(options: argparse.Namespace) -> int:
    """Simulate, and say where the files are."""
    simulation = Simulation(
        scene=named_scene(options.scene),
        output=options.output,
        visits=options.visits,
        detectors=options.detectors,
        shape=_shape(options.shape),
        seed=options.seed,
        band=options.band,
        compression=options.compression,
    )
    images = simulate_visits(
        simulation,
        workers=options.workers,
        overwrite=options.overwrite,
        progress=Progress("simulating detectors"),
    )
    print(f"{len(images)} images in {options.output / 'raw'}, their truth in {options.output / 'truth'}")
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def _shape(text: str) -> tuple[int, int]:
    rows, times, columns = text.partition("x")
    try:
        shape = int(rows), int(columns)
    except ValueError:
        shape = 0, 0
    if not times or min(shape) < 1:
        raise ConfigError(f"--shape must be like 4000x4072 (rows x columns), not {text!r}")
    return shape
