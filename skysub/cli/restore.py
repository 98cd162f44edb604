"""``skysub restore``: put the sky back into an image that skysub subtracted it from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files that skysub subtract wrote")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="a FITS file, or a folder (default: IMAGE_restored.fits)"
    )
    parser.add_argument(
        "--background",
        metavar="FILE",
        help="the layers that were subtracted, for a visit image of `skysub export`",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that are there")


def run(options: argparse.Namespace) -> int:
    """Restore each image; 1 when any of them failed."""
    from skysub.cli.outputs import check_free, target_of
    from skysub.desk.restore import restore
    from skysub.errors import ConfigError, SkysubError
    from skysub.text import printable

    if options.background is not None and len(options.images) > 1:
        raise ConfigError("--background is that of one image: give one at a time")
    failed = 0
    for image in options.images:
        try:
            target = target_of(image, options.output, "_restored", several=len(options.images) > 1)
            check_free(image, target, overwrite=options.overwrite)
            restored = restore(image, options.background)
            restored.write(target)
            how = "exactly" if restored.exact else "to within rounding"
            print(printable(f"{image}: restored {how} ({restored.why}) -> {target}"), flush=True)
        except SkysubError as error:
            failed += 1
            message = str(error)
            print(
                message if message.startswith(printable(image)) else f"{printable(image)}: {message}",
                file=sys.stderr,
            )
    return 1 if failed else 0
