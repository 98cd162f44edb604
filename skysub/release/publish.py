"""Publish a campaign: visit by visit into Zarr and Parquet, so that a kill at any moment costs one visit."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysub._version import __version__
from skysub.campaign.records import who
from skysub.campaign.store.address import place_at
from skysub.campaign.store.seals import read_sealed, sealed
from skysub.campaign.store.storage_path import writing
from skysub.errors import DamagedError, MissingPackageError, OutputError, ReleaseError, how_to_install
from skysub.release.contents import Contents, Request, Source, VisitContents
from skysub.release.files import BUILDING, Shelf, read_record
from skysub.release.finish import finish
from skysub.release.part import Axes
from skysub.release.rows import rows_of
from skysub.release.zarr_store import skeleton

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import zarr

    from skysub.campaign.store.storage_path import Hold, StoragePath

__all__ = ["Published", "publish"]

FORMAT = 1
"""Version of the layout of releases."""

_PLAN = "plan.json"
_LINES = "visits.jsonl"
_RECEIPTS = "receipts"

_LOOKS = 3
"""How often a visit is looked at: its marker may take the place of its detectors' meanwhile."""

_MOST_WORKERS = 4


@dataclass(frozen=True)
class Published:
    """What a publication came to."""

    name: str
    target: str
    state: str
    """"published", or "was complete": there was nothing to do."""
    visits: int
    files: int
    bytes: int
    counts: dict[str, int]
    """Units by state: done, and what is not in the release: failed, waiting, left, removed."""
    later: bool
    """Whether the campaign went on since this release was begun; what it did is not in it."""
    snapshot: str = ""
    """Of icechunk, where one was asked for."""


def publish(
    output: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str = "",
    products: Collection[str] = (),
    visits: Collection[int] = (),
    select: str = "",
    partial: bool = False,
    mixed: bool = False,
    icechunk: str = "",
    workers: int | None = None,
    tell: Callable[[str], object] | None = None,
) -> Published:
    """Make a release of what a campaign did: Zarr and Parquet that any tool opens, docs/releases.md says how.

    It may be killed at any moment and started again, which goes on; where the release is complete it does
    nothing.

    Parameters
    ----------
    output
        Folder or ``s3://`` address of the campaign.
    target
        Folder or ``s3://`` address of the release; empty, or one that this call began.
    name
        What the release is called; by default the last part of ``target``.
    products
        Names of products; by default all that the newest run makes.
    visits, select
        Visits by number, and a condition over them as ``"band = 'r' and visit > 1000"``; all by default.
    partial
        Publish a campaign that still has work left.
    mixed
        Publish results of several settings or versions of one step beside each other.
    icechunk
        Folder or ``s3://`` address of an icechunk repository, which gets the Zarr arrays as a snapshot
        with the tag ``name``.
    workers
        Threads that read and write visits; as many as processors by default, 4 at most.
    tell
        Called with a line for people now and then.

    Raises
    ------
    ReleaseError
        When there is another release or something else at ``target``, work is left, or results would be
        mixed.
    CampaignNotFoundError
        When there is no campaign.
    DamagedError
        When a file of the campaign is not as it was written; the release goes on once it was mended.
    OutputInUseError
        When another process writes this release.
    OutputError
        When ``target`` cannot be written.
    MissingPackageError
        When pyarrow, or icechunk where it is asked for, is not installed.
    """
    _need_parquet()
    place, campaign = place_at(target), place_at(output)
    place.check_folder()
    request = Request(
        name=name or place.absolute().name,
        products=tuple(products),
        visits=tuple(sorted(set(visits))),
        select=select,
        partial=partial,
        mixed=mixed,
    )
    source = Source(campaign, request)
    say = tell or (lambda _: None)
    published = _as_it_stands(place, source)
    if published is None:
        _check_folder(place)
        with (place / BUILDING).locked() as hold:
            published = _as_it_stands(place, source) or _built(place, source, hold, workers, say)
    (place / BUILDING).remove_tree()
    if icechunk:
        # it needs an extra
        from skysub.release.snapshot import write_snapshot

        snapshot = write_snapshot(place, icechunk, say)
        published = Published(**{**vars(published), "snapshot": snapshot})
    return published


def _as_it_stands(place: StoragePath, source: Source) -> Published | None:
    """A release that is complete and the one that is asked for; None where there is none.

    Raises
    ------
    ReleaseError
        When it is another one.
    """
    record = read_record(place)
    if record is None:
        return None
    contents = source.contents()
    if record["identity"] != contents.identity:
        there = f"release {record['name']!r} of {record['created']}"
        done, now = record["counts"].get("done", 0), contents.counts.get("done", 0)
        what = (
            f"with {done} units, and this would have {now}" if done != now else "of other results or settings"
        )
        raise ReleaseError(
            f"{place} holds {there}, {what}: a release is never written over. Choose another folder and name"
        )
    return _published(place, record, "was complete", later=False)


def _built(
    place: StoragePath, source: Source, hold: Hold, workers: int | None, say: Callable[[str], object]
) -> Published:
    building = place / BUILDING
    plan = read_sealed(building / _PLAN)
    later = False
    if plan is None:
        contents = source.contents()
        plan = _frozen(building, source, contents)
    else:
        if plan["request"] != source.request.as_json():
            raise ReleaseError(
                f"{place} holds the beginning of release {plan['request']['name']!r}, of which other things "
                f"were asked ({_differences(plan['request'], source.request.as_json())}): finish it by the "
                "command that began it, or remove it"
            )
        later = source.contents().identity != plan["contents"]["identity"]
        say(f"going on with the release that was begun {plan['created']}")
    facts = plan["contents"]
    axes = Axes(tuple(facts["visits"]), tuple(facts["detectors"]))
    parts = {name: source.part(name, each["facts"]) for name, each in facts["products"].items()}
    groups = skeleton(parts, axes)
    done = set((building / _RECEIPTS).sizes())
    waiting = [each for each in _lines(building) if f"{each.visit}.json" not in done]
    at_once = workers or min(_MOST_WORKERS, os.cpu_count() or 1)

    def make(visit: VisitContents) -> int:
        if hold.lost:
            raise OutputError(hold.lost)
        _publish_visit(place, source, parts, axes, groups, visit)
        return visit.visit

    said = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        futures = (pool.submit(make, visit) for visit in waiting)
        for count, future in enumerate(_in_turns(futures, 2 * at_once), 1):
            future.result()
            if time.monotonic() - said > 10:
                said = time.monotonic()
                say(f"{count} of {len(waiting)} visits")
    record = finish(place, source, plan, parts, axes, _lines(building))
    return _published(place, record, "published", later=later)


def _frozen(building: StoragePath, source: Source, contents: Contents) -> dict[str, Any]:
    """Write what the release is to hold; the plan comes last, so without it nothing was begun."""
    with writing(building):
        (building / _LINES).put_lines(contents.lines)
        plan = {
            "format": FORMAT,
            "request": source.request.as_json(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "campaign": str(source.output.absolute()),
            "skysub": __version__,
            "contents": contents.facts(),
        }
        (building / _PLAN).put(sealed(json.dumps(plan).encode()), durable=True)
    return plan


def _lines(building: StoragePath) -> Iterator[VisitContents]:
    for line in (building / _LINES).lines():
        yield VisitContents.from_json(line)


def _publish_visit(  # noqa: PLR0917 - what is the same for all visits
    place: StoragePath,
    source: Source,
    parts: dict[str, Any],
    axes: Axes,
    groups: dict[str, zarr.Group],
    visit: VisitContents,
) -> None:
    for look in range(_LOOKS):
        shelf = Shelf(place)
        try:
            rows = rows_of(source, parts, axes, groups, visit, shelf)
            break
        except FileNotFoundError as error:
            # the marker of a visit has come in between
            if look == _LOOKS - 1:
                raise ReleaseError(
                    f"{who(visit.visit)}: {error.filename or error} went away while it was published: "
                    "start again"
                ) from None
        except DamagedError as error:
            raise DamagedError(f"{error.args[0]}; then publish again, which goes on") from None
    receipt = {"visit": visit.visit, "files": [[*vars(each).values()] for each in shelf.written], **rows}
    with writing(place):
        (place / BUILDING / _RECEIPTS / f"{visit.visit}.json").put(sealed(json.dumps(receipt).encode()))


def _in_turns(futures: Iterator[Any], ahead: int) -> Iterator[Any]:
    """Go through futures, no more than some ahead: a release has more visits than fit into memory."""
    begun: deque[Any] = deque()
    for future in futures:
        begun.append(future)
        if len(begun) >= ahead:
            yield begun.popleft()
    yield from begun


def _published(place: StoragePath, record: dict[str, Any], state: str, *, later: bool) -> Published:
    return Published(
        name=record["name"],
        target=str(place),
        state=state,
        visits=record["visits"],
        files=record["files"],
        bytes=record["bytes"],
        counts=record["counts"],
        later=later,
    )


def _check_folder(place: StoragePath) -> None:
    """Refuse a folder with anything in it, but for a release that was begun.

    Raises
    ------
    ReleaseError
        When it has something else.
    """
    names = place.names()
    if names and BUILDING not in names:
        raise ReleaseError(
            f"{place} is not empty (it has {', '.join(sorted(names)[:5])}): a release needs a folder of its "
            "own"
        )


def _differences(there: dict[str, Any], asked: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}: {there.get(key)!r} then, {asked[key]!r} now" for key in asked if asked[key] != there.get(key)
    )


def _need_parquet() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(f"a release needs pyarrow; {how_to_install('parquet')}") from error
