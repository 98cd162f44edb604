"""What a worker keeps between units of one run: the plan's record, the step and its settings."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from skysub.campaign.recipe import built
from skysub.campaign.steps import find_step
from skysub.campaign.store.address import place_at
from skysub.campaign.store.runs import Run
from skysub.visit.ingest import IngestMap

if TYPE_CHECKING:
    from collections.abc import Hashable

    from skysub.campaign.steps import Step

__all__ = ["configured_step", "ingest_of", "run_at"]


def run_at(folder: str) -> Run:
    """Run in a folder; its record is read once, unless another run takes the folder's place."""
    return _opened(folder, (place_at(folder) / "run.json").made())


def configured_step(run: Run) -> tuple[Step, Any]:
    """Step of a run, and its settings."""
    return _configured(run.record["step"], json.dumps(run.record["settings"]))


def ingest_of(run: Run, source: int) -> IngestMap:
    """Mapping by which a run reads the files of one source."""
    return _ingest(json.dumps(run.record["ingests"][source]), source)


@functools.lru_cache(maxsize=4)
def _opened(folder: str, _made: Hashable) -> Run:
    return Run(place_at(folder))


@functools.lru_cache(maxsize=4)
def _configured(name: str, settings: str) -> tuple[Step, Any]:
    step = find_step(name)
    return step, step.configured(json.loads(settings))


@functools.lru_cache(maxsize=64)
def _ingest(settings: str, source: int) -> IngestMap:
    ingest: IngestMap = built(IngestMap, json.loads(settings), f"inputs.{source}.ingest")
    return ingest
