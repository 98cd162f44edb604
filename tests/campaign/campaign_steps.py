"""Steps that tests name in recipes as campaign_steps:NAME; workers import this file by its folder."""

import dataclasses
import errno
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from skysub.background.model import BackgroundList
from skysub.campaign.products.background import Background
from skysub.campaign.shipped import STEPS, BackgroundStep
from skysub.campaign.steps import StepResult

IMAGE, BACKGROUND = "preliminary_visit_image", "preliminary_visit_image_background"


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


def _work(given, config):
    if config.ledger:
        with Path(config.ledger).open("a") as file:
            file.write(f"{given.visit} {given.detector}\n")
    if given.detector in config.bad:
        if config.how == "raise":
            raise ValueError(f"detector {given.detector} is <b>odd</b>")
        if config.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if config.how == "memory":
            raise MemoryError
        if config.how == "passing":
            raise OSError(errno.EIO, "the file system is away")
    time.sleep(config.seconds)
    return STEPS["background"].work(given, config.background)


def _layout(shape, config):
    return STEPS["background"].output(BACKGROUND).layout(shape, config.background)


tampered = dataclasses.replace(
    STEPS["background"],
    name="campaign_steps:tampered",
    configuration=Tampered,
    work=_work,
    outputs=(STEPS["background"].output(IMAGE), Background(name=BACKGROUND, layout=_layout)),
    blocks=None,
)


class _Held:
    """A visit image in the place of a file."""

    def __init__(self, visit_image):
        self.visit_image = lambda: visit_image


def _two_layers(given, config):
    first = STEPS["background"].work(given, config).products
    second = STEPS["background"].work(_Held(first[IMAGE]), config).products
    layers = BackgroundList([*first[BACKGROUND], *second[BACKGROUND]])
    # one layer more than the layout has room for
    return StepResult(products={IMAGE: second[IMAGE], BACKGROUND: layers})


two_layers = dataclasses.replace(STEPS["background"], name="campaign_steps:two_layers", work=_two_layers)
