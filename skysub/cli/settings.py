"""Settings of one image's subtraction, from a name, a YAML file and assignments on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skysub.desk.subtract import SubtractConfig
    from skysub.visit.ingest import IngestMap

__all__ = ["ingest_of", "subtract_settings"]

_NAMES = ("default", "lsst")


def subtract_settings(config: str, assignments: Sequence[str]) -> SubtractConfig:
    """Return the settings that ``--config`` and ``--set`` ask for.

    A YAML file has the keys of `skysub.CalibrateImageConfig`, and ``base`` (a name that ships, whose settings
    it changes) and ``final`` (the keys of `skysub.BackgroundConfig`).

    Raises
    ------
    RecipeError
        When a key is unknown or the file cannot be read.
    ConfigError
        When a value is out of range, or there is no configuration of the name.
    """
    from skysub.desk.subtract import SubtractConfig, subtract_config

    if config in _NAMES and not assignments:
        return subtract_config(config)
    # pydantic and YAML are slow to load, and seldom needed
    from skysub.background.config import BackgroundConfig
    from skysub.campaign.recipe import built
    from skysub.errors import ConfigError
    from skysub.pipeline.config import CalibrateImageConfig
    from skysub.settings.lookup import read_yaml, set_value

    tree: dict[str, Any] = {}
    base = config
    if config not in _NAMES:
        from pathlib import Path

        if not Path(config).is_file():
            raise ConfigError(
                f"--config {config}: there is no such file, and no configuration of that name; "
                "those that ship are default and lsst"
            )
        tree = dict(read_yaml(Path(config), "settings"))
        base = str(tree.pop("base", "default"))
    for assignment in assignments:
        tree = set_value(tree, assignment)
    final = tree.pop("final", None)
    calibrate = CalibrateImageConfig.named(base)
    if tree:
        calibrate = built(CalibrateImageConfig, _merged(_tree(calibrate), tree), "settings")
    last = None
    if final is not None:
        if not isinstance(final, dict):
            raise ConfigError(f"final must be keys and values, as in final.model=natural, not {final!r}")
        last = built(BackgroundConfig, final, "final")
    return subtract_config(SubtractConfig(calibrate, last))


def ingest_of(assignments: Sequence[str]) -> IngestMap:
    """Return the mapping that ``--ingest KEY=VALUE`` gives.

    Raises
    ------
    RecipeError, ConfigError
        When a key is unknown or a value is no good.
    """
    from skysub.visit.ingest import IngestMap

    if not assignments:
        return IngestMap()
    from skysub.campaign.recipe import built
    from skysub.settings.lookup import set_value

    tree: dict[str, Any] = {}
    for assignment in assignments:
        tree = set_value(tree, assignment)
    ingest: IngestMap = built(IngestMap, tree, "--ingest")
    return ingest


def _tree(value: Any) -> Any:
    """Return a configuration as nested mappings of what is given, without changing values."""
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            each.name: _tree(getattr(value, each.name)) for each in dataclasses.fields(value) if each.init
        }
    return value


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
