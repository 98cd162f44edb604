"""What mkdocs calls while it builds the site: reference pages made of the code, and formulas as MathML."""

from __future__ import annotations

import html
import importlib
import re
from typing import TYPE_CHECKING, Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

from docs.site_hooks.settings_tables import model_rows, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

__all__ = ["on_files", "on_page_content"]

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_HEAD = "| setting | default | meaning |\n| --- | --- | --- |"
_ABOUT_SETTINGS = """\
This page is made of the classes themselves, so it is complete. Settings of a step stand in a recipe below
`steps: NAME:` and are changed by `--set steps.NAME.SETTING=VALUE`; those of `skysub subtract` are changed by
`--set SETTING=VALUE`. In Python they are arguments of the class; a dotted path is a class within a class."""
_ABOUT_PYTHON = """\
`import skysub` has these names, and they are stable. Arrays are (y, x); units, dtypes and what NaN and masked
pixels mean stand with each."""
_WIDTH = 100
"""Columns of the help texts."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference that the code itself tells."""
    pages = {
        "reference/settings.md": _settings(),
        "reference/commands.md": _commands(),
        "reference/python.md": _python(),
    }
    for path, lines in pages.items():
        files.append(File.generated(config, path, content="\n".join(lines) + "\n"))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers show by themselves: no script, and nothing fetched."""

    def shown(found: re.Match[str]) -> str:
        display = "block" if found[2] == "[" else "inline"
        return convert(html.unescape(found[3]).strip(), display=display)

    return _FORMULA.sub(shown, content)


def _settings() -> Iterator[str]:
    import skysub
    from skysub.campaign.recipe import Recipe, Source
    from skysub.cluster.profiles import KINDS

    yield "# Settings"
    yield ""
    yield _ABOUT_SETTINGS
    for title, config, without in (
        ("Background of one image: `BackgroundConfig`", skysub.BackgroundConfig(), ()),
        ("One image without a campaign: `SubtractConfig`", skysub.SubtractConfig(), ("calibrate",)),
        ("Step `calibrate_image`: `CalibrateImageConfig`", skysub.CalibrateImageConfig(), ()),
        ("Step `visit_background`: `VisitBackgroundConfig`", skysub.VisitBackgroundConfig(), ()),
        ("Step `reprocess_visit_image`: `ReprocessVisitImageConfig`", skysub.ReprocessVisitImageConfig(), ()),
        ("What a file does not say: `IngestMap`", skysub.IngestMap(), ()),
    ):
        yield from _table(title, rows(config, without=without))
    yield from _table("Recipes", model_rows(Recipe))
    yield from _table("Sources of inputs in a recipe: `inputs`", model_rows(Source, "inputs."))
    for kind, place in KINDS.items():
        module, _, name = place.partition(":")
        model = getattr(importlib.import_module(module), name)
        yield from _table(f"Profiles of kind `{kind}`", model_rows(model))


def _table(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "", _HEAD)
    yield from lines


def _commands() -> Iterator[str]:
    from skysub.cli import parsers_of_verbs

    yield "# Commands"
    yield ""
    yield "Each is explained by `skysub VERB --help` as well; this page is made of the same texts."
    for verb, parser in parsers_of_verbs().items():
        parser.formatter_class = _formatter(parser.formatter_class)
        yield from ("", f"## skysub {verb}", "", "```text", parser.format_help().rstrip(), "```")


def _formatter(given: Any) -> Any:
    """Formatter of the same kind whose lines do not depend on the terminal."""
    return lambda prog: given(prog, width=_WIDTH)


def _python() -> Iterator[str]:
    import skysub

    yield "# Python"
    yield ""
    yield _ABOUT_PYTHON
    for name in skysub.__all__:
        if name != "__version__":
            yield from ("", f"::: skysub.{name}")
