"""What builds the site of the documentation: tables made of classes, and links of its pages."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

import skysub
from docs.site_hooks.settings_tables import model_rows, rows
from skysub.campaign.recipe import Recipe, Source
from skysub.cluster.profiles import KINDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Inner:
    """Settings with texts below them."""

    a: int = 1
    b: str = "x|y"
    """Two that share a text, ``a`` first | then b."""


@dataclass(frozen=True)
class Outer:
    """Settings of a thing.

    Parameters
    ----------
    size, weight
        Of the thing,
        in two lines.
    inner
        What is within.

    Raises
    ------
    ValueError
        Never.
    """

    size: float = 2.5
    weight: bool = True
    inner: Inner = Inner()


class Key(BaseModel):
    """A model with a key by another name."""

    name: str = Field(alias="class")
    """What is called."""
    sizes: tuple[int, ...] = ()
    """Of each."""


class Keys(BaseModel):
    """A model in a model."""

    key: Key = Key(**{"class": "A"})
    """The first."""
    silent: int = 0


def test_tables_of_dataclasses():
    assert list(rows(Outer(), "top.")) == [
        "| `top.size`, `top.weight` | `2.5`, `true` | Of the thing, in two lines. |",
        "| `top.inner.a`, `top.inner.b` | `1`, `x\\|y` | Two that share a text, `a` first \\| then b. |",
    ]
    assert list(rows(Outer(), without=("inner",)))[1:] == ["| `inner` | on | What is within. |"]


def test_a_setting_that_nobody_describes_is_an_error():
    @dataclass(frozen=True)
    class Silent:
        """Nothing."""

        a: int = 0

    with pytest.raises(ValueError, match="Silent: docstring and fields differ in a"):
        list(rows(Silent()))
    with pytest.raises(ValueError, match=r"Keys\.silent has no text"):
        list(model_rows(Keys))


def test_tables_of_models():
    assert list(model_rows(Key, "top.")) == [
        "| `top.class` | needed | What is called. |",
        "| `top.sizes` | empty | Of each. |",
    ]


@pytest.mark.parametrize("name", [name for name in skysub.__all__ if name.endswith(("Config", "IngestMap"))])
def test_all_settings_are_described(name):
    assert list(rows(getattr(skysub, name)()))


@pytest.mark.parametrize("place", [*KINDS.values(), Recipe, Source])
def test_all_keys_are_described(place):
    if isinstance(place, str):
        module, _, name = place.partition(":")
        place = getattr(importlib.import_module(module), name)
    assert list(model_rows(place))


def anchors(page):
    """Names that headings of a page have as a link's target, as GitHub and the site make them."""
    titles = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("reference/"):
            continue
        path, _, anchor = target.partition("#")
        to = page.parent / path if path else page
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), target
