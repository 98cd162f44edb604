"""``skysub subtract``: images without their sky, no campaign needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from skysub.desk.subtract import Subtracted
    from skysub.visit.ingest import IngestMap

__all__ = ["add_arguments", "run"]

_ADDED = "_skysub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="FITS files of any kind; s3:// as well")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a FITS file, or a folder (default: IMAGE_skysub.fits beside each image)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that are there")
    parser.add_argument(
        "--picture",
        action="store_true",
        help="draw image, mask, sky and what is left: a PNG beside each output",
    )
    parser.add_argument(
        "--config", metavar="NAME", default="default", help="default, lsst, or a YAML file of settings"
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="change a setting, as in sky.background.order=4 or final.model=natural; may be repeated",
    )
    parser.add_argument(
        "--ingest",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="what the file does not say, as in image=2, unit=electron or gain=1.6; may be repeated",
    )
    parser.add_argument("--detector", type=int, metavar="N", help="only this one, of a file of several")
    parser.add_argument(
        "--again", action="store_true", help="even if the header says that the sky is gone already"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: all processors")


def run(options: argparse.Namespace) -> int:
    """Subtract the sky of each file; 1 when any of them failed. One line each says what came of it."""
    from skysub.cli.outputs import check_free, target_of
    from skysub.cli.settings import ingest_of, subtract_settings
    from skysub.desk.subtract import subtract
    from skysub.errors import ConfigError, SkysubError
    from skysub.text import printable

    if options.threads is not None and options.threads < 1:
        raise ConfigError(f"--threads must be at least 1, not {options.threads}")
    config = subtract_settings(options.config, options.settings)
    ingest = ingest_of(options.ingest)
    failed = done = 0
    taken: dict[str, str] = {}
    for image in options.images:
        for detector, several in _detectors(image, ingest, options.detector):
            try:
                target = target_of(
                    image,
                    options.output,
                    f"{_ADDED}_{detector}" if several else _ADDED,
                    several=len(options.images) > 1 or (several and options.detector is None),
                )
                if target in taken:
                    raise ConfigError(f"{image}: its output {target} is also that of {taken[target]}")
                taken[target] = image
                check_free(image, target, overwrite=options.overwrite)
                result = subtract(
                    image,
                    config=config,
                    ingest=ingest,
                    detector=detector,
                    again=options.again,
                    threads=options.threads,
                    bare=True,
                )
                result.write(target)
                if options.picture:
                    result.picture(_picture(target))
                _say(result, image, target, detector if several else None)
                done += 1
            except SkysubError as error:
                # a broken file does not stop the others
                failed += 1
                message = str(error)
                known = message.startswith(printable(image))
                print(message if known else f"{printable(image)}: {message}", file=sys.stderr)
    if len(options.images) > 1:
        print(f"{done} subtracted" + (f", {failed} failed" if failed else ""))
    return 1 if failed else 0


def _detectors(image: str, ingest: IngestMap, chosen: int | None) -> list[tuple[int | None, bool]]:
    """Each detector of a file that is asked for, and whether the file holds several."""
    from skysub.errors import SkysubError
    from skysub.visit.fits.lenient import detectors_in

    try:
        found = detectors_in(image, ingest)
    except SkysubError:
        # who reads it says what is wrong
        found = [None]
    return [(detector, len(found) > 1) for detector in ([chosen] if chosen is not None else found)]


def _picture(target: str) -> str:
    """Where the picture of an output goes: beside it; of one at a URL, into this folder."""
    from skysub.cli.outputs import stem_of

    folder, slash, name = target.rpartition("/")
    beside = f"{stem_of(name)}.png"
    return beside if "://" in target else folder + slash + beside


def _say(result: Subtracted, image: str, target: str, detector: int | None) -> None:
    """Print a line of what came of one image, and below it what a person should know."""
    from skysub.text import printable

    of = "" if detector is None else f" detector {detector}"
    facts = [
        f"sky {result.sky:.6g} {result.unit}",
        f"noise {result.noise:.3g}",
        f"{100 * result.masked:.1f} % masked",
        f"flags {', '.join(result.flags) or 'none'}",
        f"{result.seconds:.1f} s",
    ]
    lines = [f"{image}{of}: {', '.join(facts)} -> {target}"]
    lines += [f"  guessed: {guess}" for guess in result.guesses]
    lines += [f"  {name}: {text}" for name, text in result.flags.items()]
    for line in lines:
        print(printable(line), flush=True)
