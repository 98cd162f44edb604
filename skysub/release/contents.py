"""What a release holds, frozen before any of it is written: which unit of which run, and room for it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from skysub.campaign.context import chain_of
from skysub.campaign.current import Current
from skysub.campaign.reading import entry_of, finished_of
from skysub.campaign.records import who
from skysub.campaign.selection import Selection
from skysub.campaign.status import REMOVED, Looked, states_of
from skysub.campaign.store.runs import existing_runs
from skysub.campaign.store.seals import read_sealed
from skysub.errors import NotDoneError, ReleaseError
from skysub.release.image_part import ImagePart
from skysub.release.part import Axes, Held
from skysub.release.small_parts import BackgroundPart, GridPart
from skysub.release.table_parts import ObjectPart, TablePart
from skysub.settings.lookup import closest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from skysub.campaign.current import VisitView
    from skysub.campaign.reading import Finished
    from skysub.campaign.store.storage_path import StoragePath
    from skysub.release.part import Part

__all__ = ["Contents", "Request", "Source", "VisitContents", "part_of"]

_PARTS: dict[str, type[Part]] = {
    "image": ImagePart,
    "background": BackgroundPart,
    "grid": GridPart,
    "table": TablePart,
    "object": ObjectPart,
}


@dataclass(frozen=True)
class Request:
    """What is to be published."""

    name: str
    products: tuple[str, ...] = ()
    """Empty: all that the newest run makes."""
    visits: tuple[int, ...] = ()
    """Empty: all."""
    select: str = ""
    """A condition over visits, as ``skysub run --select`` takes it."""
    partial: bool = False
    """Whether a campaign that still has work left may be published."""
    mixed: bool = False
    """Whether results of several settings or versions of one step may stand beside each other."""

    def as_json(self) -> dict[str, Any]:
        """Return the request as plain values."""
        return {**vars(self), "products": list(self.products), "visits": list(self.visits)}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Request:
        """Return the request that `as_json` gave."""
        return cls(**{**values, "products": tuple(values["products"]), "visits": tuple(values["visits"])})


@dataclass(frozen=True)
class VisitContents:
    """What a release has of one visit."""

    visit: int
    band: str
    exposure_time: float | None
    detectors: tuple[int, ...]
    units: dict[str, dict[int | None, tuple[str, str, str]]]
    """Run, key and checksum of the input, by step and detector: all that is done."""
    absent: tuple[tuple[str, int | None, str, str], ...]
    """Step, detector, state and reason of all that is planned and not done."""

    def to_json(self) -> str:
        """Return the visit as one line."""
        units = {step: [[each, *unit] for each, unit in named.items()] for step, named in self.units.items()}
        return json.dumps({**vars(self), "units": units}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> VisitContents:
        """Return the visit that `to_json` wrote."""
        values = json.loads(text)
        values["detectors"] = tuple(values["detectors"])
        values["units"] = {
            step: {each: (run, key, crc) for each, run, key, crc in named}
            for step, named in values["units"].items()
        }
        values["absent"] = tuple((step, each, state, why) for step, each, state, why in values["absent"])
        return cls(**values)


@dataclass
class Contents:
    """What a release holds."""

    axes: Axes
    parts: dict[str, Part]
    """By product."""
    steps: dict[str, str]
    """Step of each product."""
    runs: tuple[str, ...]
    """Runs that hold any of it."""
    counts: dict[str, int]
    """Units by state."""
    identity: str
    """SHA-256 of all that it holds: releases of one identity have the same content."""
    lines: list[str] = field(default_factory=list)
    """A `VisitContents` each."""

    def facts(self) -> dict[str, Any]:
        """All but the lines, as plain values."""
        return {
            "visits": list(self.axes.visits),
            "detectors": list(self.axes.detectors),
            "products": {
                name: {
                    "kind": part.product.kind,
                    "of": part.of,
                    "step": self.steps[name],
                    "facts": part.facts(),
                }
                for name, part in self.parts.items()
            },
            "runs": list(self.runs),
            "counts": self.counts,
            "identity": self.identity,
        }


class Source:
    """A campaign of which a release is made.

    Parameters
    ----------
    output
        Folder or address of the campaign.
    request
        What is to be published.

    Raises
    ------
    CampaignNotFoundError
        When there is no campaign.
    NotDoneError
        When it makes no product of a name.
    """

    def __init__(self, output: StoragePath, request: Request) -> None:
        self.output = output
        self.request = request
        self.current = Current(existing_runs(output))
        chain = chain_of(self.current.runs[-1])
        self.products = request.products or tuple(chain.products)
        for name in self.products:
            if name not in chain.products:
                known = list(chain.products)
                raise NotDoneError(
                    f"{output} makes no product {name!r}{closest(name, known)}; it makes {', '.join(known)}"
                )
        makers = {chain.makers[name] for name in self.products}
        wanted = makers | {above for step in makers for above in chain.ancestors(step)}
        self.chain = chain
        self.steps = [step for step in chain.names if step in wanted]
        self._chosen = Selection(frozenset(request.visits) or None, request.select).chooser()

    def part(self, name: str, facts: Mapping[str, Any] | None = None) -> Part:
        """Part of a release that a product becomes."""
        product = self.chain.products[name]
        return part_of(product, self.chain[self.chain.makers[name]].step.of(product), facts)

    def views(self) -> Iterator[VisitView]:
        """Go through the chosen visits."""
        for view in self.current.views():
            if self._chosen(view.visit, view.exposures):
                yield view

    def contents(self) -> Contents:
        """Look at all that is done, and freeze it.

        Raises
        ------
        ReleaseError
            When nothing is done, work is left and ``partial`` was not asked for, or results would be mixed.
        """
        parts = {name: self.part(name) for name in self.products}
        removed: dict[int, set[int]] = {}
        for visit, detector in (read_sealed(self.output / REMOVED) or {}).get("inputs", ()):
            removed.setdefault(visit, set()).add(detector)
        counts: Counter[str] = Counter()
        settings: dict[str, dict[tuple[str, ...], list[Any]]] = {}
        lines, visits, runs = [], [], set()
        detectors: set[int] = set()
        sha = hashlib.sha256()
        looked = Looked()
        for view in self.views():
            units: dict[str, dict[int | None, tuple[str, str, str]]] = {}
            for step in self.steps:
                units[step] = {}
                for finished in finished_of(view, step):
                    units[step][finished.detector] = _identity_of(finished)
                    runs.add(finished.run.name)
                    ways = settings.setdefault(step, {})
                    way = ways.setdefault(_made_by(finished), [0, view.visit, finished.run.name])
                    way[0] += 1
                    self._look(parts, finished)
            visit = VisitContents(
                visit=view.visit,
                band=",".join(dict.fromkeys(each.band for each in view.exposures.values())),
                exposure_time=next(iter(view.exposures.values())).exposure_time,
                detectors=tuple(view.exposures),
                units=units,
                absent=tuple(_absent(view, self.steps, looked, removed.get(view.visit, set()))),
            )
            counts["done"] += sum(map(len, units.values()))
            counts.update(state for _, _, state, _ in visit.absent)
            visits.append(view.visit)
            detectors.update(view.exposures)
            lines.append(visit.to_json())
            # why units failed may be said in other words the next time
            sha.update(replace(visit, absent=()).to_json().encode() + b"\n")
        self._check(counts, settings, bool(visits))
        contents = Contents(
            axes=Axes(tuple(visits), tuple(sorted(detectors))),
            parts=parts,
            steps={name: self.chain.makers[name] for name in self.products},
            runs=tuple(sorted(runs)),
            counts=dict(sorted(counts.items())),
            identity="",
            lines=lines,
        )
        sha.update(json.dumps([contents.facts(), self.request.as_json()], sort_keys=True).encode())
        contents.identity = sha.hexdigest()
        return contents

    def held(self, visit: VisitContents) -> dict[str, dict[int | None, Finished]]:
        """Finished units of a visit that the release holds, by step and detector.

        Raises
        ------
        ReleaseError
            When one is not what it was when the release was begun.
        """
        view = self.current.view(visit.visit)
        found: dict[str, dict[int | None, Finished]] = {}
        for step, wanted in visit.units.items():
            there = {} if view is None else {each.detector: each for each in finished_of(view, step)}
            for detector, unit in wanted.items():
                if detector not in there or _identity_of(there[detector]) != unit:
                    what = "is no longer there" if detector not in there else "was made anew"
                    raise ReleaseError(
                        f"the result of {step} for {who(visit.visit, detector)} {what} since this release "
                        "was begun: remove what is there of the release, and publish again"
                    )
            found[step] = {detector: there[detector] for detector in wanted}
        return found

    def entries(
        self, name: str, held: Mapping[int | None, Finished], *, payload: bool = True
    ) -> dict[int | None, Held]:
        """A product of finished units of one visit, by detector (None: that of the visit)."""
        entries: dict[int | None, Held] = {}
        for finished in held.values():
            marker = finished.marker
            if payload:
                marker = finished.run.markers(finished.step).with_payload(marker)
            for each in _along(marker.products.get(name), finished.detector):
                entry = entry_of(finished.run, finished.plan, marker, name, each)
                if entry is not None:
                    entries[each] = Held(finished, entry)
        return dict(sorted(entries.items(), key=lambda item: -1 if item[0] is None else item[0]))

    def _look(self, parts: Mapping[str, Part], finished: Finished) -> None:
        for name, part in parts.items():
            if self.chain.makers[name] == finished.step and part.has_arrays:
                of_unit = {finished.detector: finished}
                for held in self.entries(name, of_unit, payload=part.looks_into_payload).values():
                    part.look(held)

    def _check(
        self,
        counts: Mapping[str, int],
        settings: Mapping[str, Mapping[tuple[str, ...], Sequence[Any]]],
        any_visit: bool,
    ) -> None:
        if not counts.get("done"):
            why = "nothing is done" if any_visit else "no visit is chosen"
            raise ReleaseError(f"{self.output}: {why}, so there is nothing to publish")
        if counts.get("left") and not self.request.partial:
            raise ReleaseError(
                f"{self.output}: {counts['left']} units are left to do: finish them with `skysub run`, "
                "choose visits that are done with --visit or --select, or publish what is done with --partial"
            )
        for step, ways in settings.items():
            if len(ways) > 1 and not self.request.mixed:
                kinds = "; ".join(
                    f"{count} by skysub {skysub} with settings {short[:8]}, as visit {visit} of run {run}"
                    for (skysub, short, _, _), (count, visit, run) in ways.items()
                )
                raise ReleaseError(
                    f"{self.output}: results of {step} were made in several ways: {kinds}. A release of "
                    "one kind needs `skysub run` on all inputs, or a choice of visits by --visit or "
                    "--select; --mixed publishes them beside each other"
                )


def part_of(product: Any, of: Any, facts: Mapping[str, Any] | None = None) -> Part:
    """Part of a release that a product becomes, by its kind."""
    return _PARTS[product.kind](product, of, facts)


def _made_by(finished: Finished) -> tuple[str, ...]:
    """Version of skysub, settings, version of the step and tables that a unit was made with."""
    record = finished.run.record.step(finished.step)
    assert record is not None
    tables = chain_of(finished.run)[finished.step].tables
    skysub = str(finished.marker.versions.get("skysub", ""))
    return skysub, record.settings_hash, str(record.version), json.dumps(tables)


def _identity_of(finished: Finished) -> tuple[str, str, str]:
    marker = finished.marker
    read = "" if marker.input is None else str(marker.input.get("crc32c", ""))
    return finished.run.name, marker.key, read


def _along(record: Any, detector: int | None) -> list[int | None]:
    """Of which detectors a unit made a product; the unit's own by default."""
    if record is None:
        return []
    if detector is None and isinstance(record, dict) and "each" in record:
        return [int(each) for each in record["each"]]
    return [detector]


def _absent(
    view: VisitView, steps: Sequence[str], looked: Looked, removed: set[int]
) -> Iterator[tuple[str, int | None, str, str]]:
    states, failures = states_of(view, looked)
    why = {(each.step, each.detector): each.message for each in failures}
    for step in steps:
        units = states.get(step, {})
        for detector, state in units.items():
            word, _, rest = state.partition(" ")
            if word == "done":
                continue
            if word == "left" and (detector in removed or (detector is None and removed)):
                yield step, detector, "removed", "its input was taken away before it was done"
            else:
                yield step, detector, word, why.get((step, detector), rest)
        if (step, None) in why and None not in units:
            yield step, None, "failed", why[step, None]
