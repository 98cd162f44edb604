"""A chain of three small steps, over detectors, visits and detectors again, for recipes: chain_steps:NAME."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skysub.campaign.products.image import Image
from skysub.campaign.products.small import Grid, Object
from skysub.campaign.products.table import Table
from skysub.campaign.steps import Step, StepResult


@dataclass(frozen=True)
class Settings:
    factor: float = 1.0
    missing: int = 0
    seconds: float = 0.0
    ledger: str = ""
    bad: tuple[int, ...] = ()
    """Detectors (of the second step: visits) that go wrong."""
    moody: str = ""
    """A file: while it is there, bad ones go wrong."""


@dataclass(frozen=True)
class Shape:
    moments: np.ndarray
    name: str


def begin(name, given, config, number):
    who = f"{given.visit} {number}" if name != "second" else f"{given.visit}"
    if config.ledger:
        with Path(config.ledger).open("a") as file:
            file.write(f"{name} {who}\n")
    if number in config.bad and (not config.moody or Path(config.moody).exists()):
        raise ValueError(f"{name} is <b>moody</b>")
    time.sleep(config.seconds)


def _first(given, config):
    begin("first", given, config, given.detector)
    visit_image = given.visit_image()
    level = np.median(visit_image.image)
    stars = {"x": np.arange(given.detector, dtype=float), "label": [f"s{i}" for i in range(given.detector)]}
    return StepResult(
        products={
            "flat": visit_image.replace(image=visit_image.image - level),
            "level": np.array([level * config.factor]),
            "stars": {"x": stars["x"], "label": np.array(stars["label"], dtype=str)},
        },
        figures={"level": float(level), "word": f"d{given.detector}"},
    )


def _second(given, config):
    begin("second", given, config, given.visit)
    levels = {detector: value[0] for detector, value in given.products("level")}
    mean = np.mean(list(levels.values())) * config.factor
    flags = {"detectors_missing": ", ".join(map(str, given.missing))} if given.missing else {}
    return StepResult(
        products={
            "sky": np.array([mean, len(levels)]),
            "offset": {detector: np.array([level - mean]) for detector, level in levels.items()},
        },
        figures={"mean": float(mean), "detectors": len(levels)},
        flags=flags,
    )


def _third(given, config):
    begin("third", given, config, given.detector)
    flat, sky, offset = given.product("flat"), given.product("sky"), given.product("offset")
    image = flat.image + np.float32(config.factor * sky[0]) + np.float32(2 * offset[0])
    rows = np.arange(3)
    return StepResult(
        products={
            "final": flat.replace(image=image),
            "source": {"flux": image[rows, rows].astype(np.float64), "position": np.stack([rows, rows], 1)},
            "shape": Shape(image[:2, :2].copy(), f"{given.visit}"),
        },
        figures={"flux": float(image[0, 0])},
    )


first = Step(
    name="chain_steps:first",
    version=1,
    configuration=Settings,
    work=_first,
    outputs=(Image(name="flat"), Grid(name="level"), Table(name="stars")),
)
second = Step(
    name="chain_steps:second",
    version=1,
    scope="visit",
    inputs=("level",),
    configuration=Settings,
    work=_second,
    outputs=(Grid(name="sky"), Grid(name="offset", per="detector")),
    missing=lambda config: config.missing,
)
third = Step(
    name="chain_steps:third",
    version=1,
    inputs=("flat", "sky", "offset"),
    configuration=Settings,
    work=_third,
    outputs=(Image(name="final"), Table(name="source"), Object(name="shape", classes=(Shape,))),
)
