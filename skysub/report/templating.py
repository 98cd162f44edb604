"""Templates of pages, and how what they say is made safe."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any

import jinja2

from skysub.text import printable

__all__ = ["environment", "template_text"]


@functools.cache
def environment() -> jinja2.Environment:
    """Return where templates are found; all text of theirs is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("skysub", "report/templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )


def template_text(name: str) -> str:
    """Return a style sheet or script as it is."""
    return (files("skysub.report") / "templates" / name).read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """What a page says, safe to write and to copy into a terminal; the lines of tracebacks stay lines."""
    # not the markup that templates make
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value
