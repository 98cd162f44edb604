"""``skysub publish``: a release of what a campaign did, and the check of one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument(
        "output", metavar="OUT", nargs="?", help="folder of the campaign, or s3://BUCKET/PREFIX"
    )
    parser.add_argument("--to", metavar="RELEASE", help="folder of the release, new or begun; s3:// as well")
    parser.add_argument("--name", default="", help="what it is called (default: the folder's name)")
    parser.add_argument(
        "--product",
        metavar="NAME",
        action="append",
        default=[],
        help="what to publish, may be repeated (default: all that the newest run makes)",
    )
    parser.add_argument(
        "--visit", type=int, action="append", default=[], help="only this visit; may be repeated"
    )
    parser.add_argument(
        "--select", metavar="CONDITION", default="", help="only visits as \"band = 'r' and visit > 1000\""
    )
    parser.add_argument("--partial", action="store_true", help="also while work is left to do")
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="also where results of one step have several settings or versions",
    )
    parser.add_argument(
        "--icechunk",
        metavar="REPOSITORY",
        default="",
        help="write the arrays as a tagged snapshot of icechunk, too",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: processors, 4 at most)")
    parser.add_argument("--verify", metavar="RELEASE", help="compare a release with its checksums instead")


def run(options: argparse.Namespace) -> int:
    """Publish or verify; 1 when a release is not as it was written."""
    from skysub.errors import ReleaseError

    if options.verify is not None:
        if options.output is not None or options.to is not None:
            raise ReleaseError("--verify RELEASE looks at a release alone: leave out OUT and --to")
        return _verify(options.verify)
    if options.output is None or options.to is None:
        raise ReleaseError("say of which campaign and where: skysub publish OUT --to RELEASE")
    from skysub.release.publish import publish

    published = publish(
        options.output,
        options.to,
        name=options.name,
        products=options.product,
        visits=options.visit,
        select=options.select,
        partial=options.partial,
        mixed=options.mixed,
        icechunk=options.icechunk,
        workers=options.workers,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(
        f"release {published.name!r} {published.state}: {published.visits} visits, {published.files} files, "
        f"{published.bytes / 2**20:.1f} MiB in {published.target}"
    )
    absent = {state: count for state, count in published.counts.items() if state != "done" and count}
    if absent:
        words = ", ".join(f"{count} {state}" for state, count in absent.items())
        print(f"not in it: {words} units; provenance/absent.parquet says which and why")
    if published.later:
        print("the campaign went on since this release was begun: what was done meanwhile is not in it")
    if published.snapshot:
        print(
            f"icechunk: snapshot {published.snapshot} with the tag {published.name!r} in {options.icechunk}"
        )
    return 0


def _verify(target: str) -> int:
    from skysub.release.files import verify_release

    verified = verify_release(target)
    for problem in verified.problems:
        print(problem)
    size = f"{verified.files} files, {verified.bytes / 2**20:.1f} MiB"
    if verified.problems:
        print(f"release {verified.name!r}: {len(verified.problems)} of {size} are not as they were published")
        return 1
    print(f"release {verified.name!r}: {size}, all as they were published")
    return 0
