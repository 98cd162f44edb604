"""``skysub templates``: what a camera adds to the sky, of many visits of a campaign."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("campaign", metavar="OUT", help="folder of the campaign, or s3://BUCKET/PREFIX")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        required=True,
        help="where templates-BAND-DATE.fits of each band goes; or one file by its name; s3:// as well",
    )
    parser.add_argument("--band", action="append", help="only this band; may be repeated (default: all)")
    parser.add_argument("--visit", type=int, action="append", help="only this visit; may be repeated")
    parser.add_argument(
        "--select",
        metavar="CONDITION",
        default="",
        help='only visits as "visit > 1000 and exposure_time > 10"',
    )
    parser.add_argument(
        "--frames", type=int, default=2, help="sky frames that are tried at most (default: 2)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="detectors that are read at a time (default: 1)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(options: argparse.Namespace) -> int:
    """Make and write templates, and say what they hold; 1 when a band has too few visits."""
    import sys

    from skysub.campaign.campaign import open_campaign
    from skysub.campaign.make_templates import bands_of, templates_of_campaign
    from skysub.campaign.template_file import write_templates
    from skysub.errors import ConfigError, TemplatesError
    from skysub.pipeline.templates.make import TemplatesConfig

    campaign = open_campaign(options.campaign)
    config = TemplatesConfig(frames=options.frames)
    bands = options.band or bands_of(campaign)
    if options.output.endswith(".fits") and len(bands) > 1:
        raise ConfigError(
            f"--output {options.output} is one file, and there are {len(bands)} bands: name a folder, or one "
            "--band"
        )
    failed = False
    for band in bands:
        try:
            templates = templates_of_campaign(
                campaign,
                band=band,
                visits=options.visit,
                select=options.select,
                config=config,
                threads=options.threads,
                tell=lambda line: print(line, file=sys.stderr),
            )
        except TemplatesError as error:
            failed = True
            print(f"skysub templates: {error}", file=sys.stderr)
            continue
        path = write_templates(templates, options.output, overwrite=options.overwrite)
        told = sum(one.deviation > 0 for one in templates.detectors.values())
        stepped = sum(one.steps is not None for one in templates.detectors.values())
        print(
            f"{path}: {len(templates.visits)} visits in {band or 'an unknown band'}; offsets of {told} "
            f"detectors, steps of amplifiers in {stepped}, {templates.frames} sky frames"
        )
        for name, text in templates.flags.items():
            print(f"  {name}: {text}")
    return 1 if failed else 0
