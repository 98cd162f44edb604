"""``skysub subtract``: images without their sky, no campaign needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

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
        metavar="PNG",
        nargs="?",
        const="",
        help="draw image, mask, sky and what is left (default: a PNG beside each output)",
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
        try:
            for detector, several in _detectors(image, ingest, options.detector):
                target = target_of(
                    image,
                    options.output,
                    _ADDED if not several else f"{_ADDED}_{detector}",
                    several=several or len(options.images) > 1,
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
                if options.picture is not None:
                    result.picture(_picture(target, options))
                print(_line(result, image, target, detector if several else None), flush=True)
                for guess in result.guesses:
                    print(printable(f"  guessed: {guess}"))
                for name, text in result.flags.items():
                    print(printable(f"  {name}: {text}"))
                done += 1
        except SkysubError as error:
            # a broken file does not stop the others
            failed += 1
            said = str(error)
            print(
                said if said.startswith(printable(image)) else f"{printable(image)}: {said}", file=sys.stderr
            )
    if len(options.images) > 1:
        print(f"{done} subtracted" + (f", {failed} failed" if failed else ""))
    return 1 if failed else 0


def _detectors(image: str, ingest: IngestMap, chosen: int | None) -> Iterator[tuple[int | None, bool]]:
    """Each detector of a file that is asked for, and whether the file holds several."""
    from skysub.visit.fits.lenient import detectors_in

    found = detectors_in(image, ingest)
    for detector in [chosen] if chosen is not None else found:
        yield detector, len(found) > 1


def _picture(target: str, options: argparse.Namespace) -> str:
    from skysub.cli.outputs import stem_of
    from skysub.errors import ConfigError

    if options.picture:
        given = Path(options.picture)
        if given.is_dir():
            return str(given / f"{stem_of(target.rpartition('/')[2])}.png")
        if len(options.images) > 1:
            raise ConfigError(f"--picture {given} is one file, and there are several images: give a folder")
        return str(given)
    name = f"{stem_of(target.rpartition('/')[2])}.png"
    # pictures of outputs at a URL are for the person who asked
    return name if "://" in target else str(Path(target).with_name(name))


def _line(result: Subtracted, image: str, target: str, detector: int | None) -> str:
    from skysub.text import printable

    flags = ", ".join(result.flags) or "none"
    of = "" if detector is None else f" detector {detector}"
    facts: list[Any] = [
        f"sky {result.sky:.6g} {result.unit}",
        f"noise {result.noise:.3g}",
        f"{100 * result.masked:.1f} % masked",
        f"flags {flags}",
        f"{result.seconds:.1f} s",
    ]
    return printable(f"{image}{of}: {', '.join(facts)} -> {target}")
