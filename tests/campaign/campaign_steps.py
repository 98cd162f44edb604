"""Steps that tests name in recipes as campaign_steps:NAME; workers import this file by its folder."""

import dataclasses
import errno
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from skysub.background.model import BackgroundList
from skysub.campaign.steps import STEPS, BackgroundStep, StepResult


@dataclass(frozen=True)
class Tampered:
    background: BackgroundStep = field(default_factory=BackgroundStep)
    seconds: float = 0.0
    """Pause, in the middle of the work."""
    ledger: str = ""
    """File that gets a line per unit begun."""
    bad: tuple[int, ...] = ()
    """Detectors that go wrong."""
    how: str = "raise"


def _work(visit_image, config):
    if config.ledger:
        with Path(config.ledger).open("a") as file:
            file.write(f"{visit_image.visit} {visit_image.detector}\n")
    if visit_image.detector in config.bad:
        if config.how == "raise":
            raise ValueError(f"detector {visit_image.detector} is <b>odd</b>")
        if config.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if config.how == "memory":
            raise MemoryError
        if config.how == "passing":
            raise OSError(errno.EIO, "the file system is away")
    time.sleep(config.seconds)
    return STEPS["background"].work(visit_image, config.background)


def _layout(shape, config):
    return STEPS["background"].layout(shape, config.background)


tampered = dataclasses.replace(
    STEPS["background"], name="campaign_steps:tampered", configuration=Tampered, work=_work, layout=_layout
)


def _two_layers(visit_image, config):
    first = STEPS["background"].work(visit_image, config)
    second = STEPS["background"].work(first.visit_image, config)
    layers = BackgroundList([*first.background, *second.background])
    # one layer more than the layout has room for
    return StepResult(visit_image=second.visit_image, background=layers)


two_layers = dataclasses.replace(STEPS["background"], name="campaign_steps:two_layers", work=_two_layers)
