"""What a campaign comes to, in a sentence: is it good, or who must look at what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from skysub.quality_flags import asks_for_a_look, meaning_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from skysub.campaign.status import Status

__all__ = ["Flag", "Verdict", "counted_flags", "verdict_of"]


_EXAMPLES = 12
"""Detectors that a flag names at once."""


@dataclass(frozen=True)
class Flag:
    """A flag, how many detectors have it, and some of them."""

    name: str
    count: int
    examples: tuple[tuple[int, int], ...]
    """(visit, detector), in the order in which they were counted."""

    @property
    def doubt(self) -> bool:
        """Whether it asks for a person; else it tells what was done."""
        return asks_for_a_look(self.name)

    @property
    def meaning(self) -> str:
        """What it says in general; empty for flags of steps of one's own."""
        return meaning_of(self.name)


@dataclass(frozen=True)
class Verdict:
    """A sentence or two, and how much of a person's time they ask for."""

    words: str
    grade: Literal["good", "look", "bad", "running"]
    """"good": nothing to do; "look": finished, with flags or outliers; "bad": something failed; "running":
    work is left, and nothing failed so far."""


def counted_flags(flagged: Iterable[tuple[str, int, Sequence[int]]]) -> list[Flag]:
    """Count flags, given as name, visit, and detectors of that visit: doubts, then notes, by frequency."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[tuple[int, int]]] = {}
    for name, visit, detectors in flagged:
        counts[name] += len(detectors)
        named = examples.setdefault(name, [])
        named += [(visit, each) for each in detectors[: _EXAMPLES - len(named)]]
    flags = [Flag(name, count, tuple(examples[name])) for name, count in counts.most_common()]
    return sorted(flags, key=lambda flag: not flag.doubt)


def verdict_of(
    status: Status, flags: Sequence[Flag], outliers: int = 0, *, unusual: int = 0, against: str = ""
) -> Verdict:
    """Judge a campaign by its counts, its flags (as `counted_flags` sorts them) and its outliers.

    ``unusual``: figures far from what the campaigns ``against`` which it is compared have.
    """
    counts = status.counts
    left, failed = counts["left"], counts["failed"]
    sentences = []
    if failed or counts["unreadable"]:
        what = []
        if failed:
            what.append(f"{_units(failed)} failed")
        if counts["waiting"]:
            what.append(
                f"{_units(counts['waiting'])} {'wait' if counts['waiting'] > 1 else 'waits'} for that"
            )
        if counts["unreadable"]:
            number = counts["unreadable"]
            what.append(f"{number:,} input{'s' if number > 1 else ''} cannot be read")
        sentences.append(f"{', '.join(what)}.")
    if left:
        sentences.append(f"{_units(left)} {'are' if left > 1 else 'is'} left to do.")
    doubts = [flag for flag in flags if flag.doubt]
    if doubts:
        most = doubts[0]
        others = len(doubts) - 1
        more = f", and {others} other flag{'s' if others > 1 else ''}" if others else ""
        where = f"{most.count:,} detector{'s' if most.count > 1 else ''}"
        sentences.append(f"{where} {'have' if most.count > 1 else 'has'} the flag {most.name}{more}.")
    if outliers:
        stand = "figures stand" if outliers > 1 else "figure stands"
        sentences.append(f"{outliers:,} {stand} apart from the others of the band.")
    if unusual:
        are = "figures are" if unusual > 1 else "figure is"
        sentences.append(f"{unusual:,} {are} unusual beside {against}.")
    if failed or counts["unreadable"]:
        return Verdict(" ".join(sentences), "bad")
    if left:
        return Verdict(" ".join(sentences), "running")
    if sentences:
        return Verdict(" ".join(["All is done.", *sentences]), "look")
    return Verdict("All is done, and nothing asks for a look.", "good")


def _units(number: int) -> str:
    return f"{number:,} unit{'s' if number != 1 else ''}"
