"""``skysub export``: products of a campaign as files that other tools open."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("output", metavar="OUT", help="folder of the campaign, or s3://BUCKET/PREFIX")
    parser.add_argument("--to", metavar="FOLDER", required=True, help="where the files go; s3:// as well")
    parser.add_argument(
        "--product",
        metavar="NAME",
        action="append",
        help="what to export, may be repeated (default: all that the campaign makes)",
    )
    parser.add_argument("--visit", type=int, action="append", help="only this visit; may be repeated")
    parser.add_argument("--detector", type=int, action="append", help="only this detector; may be repeated")
    parser.add_argument(
        "--compression",
        choices=("none", "lossless", "lossy16"),
        default="lossless",
        help="of pixels (default: lossless tiles)",
    )
    parser.add_argument(
        "--format",
        choices=("fits", "lsst-images"),
        default="fits",
        help="of images: FITS that afw, DS9 and astropy open (default), or what lsst.images reads as its own "
        "(needs the extra lsst)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the files and say how many; 1 when a unit that was asked for is not done."""
    from skysub.campaign.export import export_products

    exported = export_products(
        options.output,
        options.to,
        products=options.product,
        visits=options.visit,
        detectors=options.detector,
        compression=options.compression,
        layout=options.format,
    )
    print(f"{exported.written} files in {options.to}")
    for reason in exported.missing:
        print(f"left out: {reason}")
    return 1 if exported.missing else 0
