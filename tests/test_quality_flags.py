"""Every quality flag that the code gives is described once, and the docs have the description."""

import re
from pathlib import Path

import pytest

from skysub.quality_flags import QUALITY_FLAGS, asks_for_a_look

ROOT = Path(__file__).parents[1]
GIVEN = re.compile(r"\b(?:quality_flags|flags|said)\[\s*\"([a-z_]+)\"\s*\] =")


def sources():
    for path in (ROOT / "skysub").rglob("*.py"):
        if path.name != "quality_flags.py":
            yield path.read_text(encoding="utf-8")


def test_flags_that_are_given_are_described():
    given = {name for text in sources() for name in GIVEN.findall(text)}
    assert len(given) > 25
    assert given <= set(QUALITY_FLAGS)


def test_flags_that_are_described_are_given():
    code = "\n".join(sources())
    assert [name for name in QUALITY_FLAGS if f'"{name}"' not in code] == []


def test_meanings_are_sentences_and_stand_in_order():
    assert list(QUALITY_FLAGS) == sorted(QUALITY_FLAGS)
    for flag in QUALITY_FLAGS.values():
        assert re.fullmatch(r"[A-Z].*\.", flag.meaning), flag.name


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("amplifiers", False),
        ("sky_structure", True),
        ("no_vote_12", True),
        ("detector_offset_3", False),
        ("flag_of_a_step_of_ones_own", True),
    ],
)
def test_notes_need_nobody(name, look):
    assert asks_for_a_look(name) is look


def test_the_docs_have_the_table():
    text = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    for flag in QUALITY_FLAGS.values():
        assert f"\n| `{flag.name}` | {flag.kind} | {flag.given_by} | {flag.meaning} |\n" in text
