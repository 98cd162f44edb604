"""Kernels of `calibrate_image` compiled side by side, on a machine that has none yet.

Numba compiles a kernel when it is first called, one after the other. Here other processes compile those
that take long and are needed late, while this one compiles what it needs first; where it comes to need one
that is not ready it waits for it (`skysub.background.compiled.once`). A process that ends early costs time
and nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np

from skysub.background.clipping import superpixel_statistics
from skysub.background.compiled import first_on_machine
from skysub.background.config import BackgroundConfig
from skysub.background.superpixels import SuperpixelGrid
from skysub.pipeline import cosmic_rays
from skysub.psf import compilation as psf

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["compile_beside", "compile_share"]

_EDGE = 96
_children: list[subprocess.Popen[bytes]] = []
"""Processes that were started."""


def compile_beside() -> None:
    """Have other processes compile kernels that this one will need, once a machine; returns at once."""
    from skysub.background import kernels

    if _processors() < 2 or not sys.executable or not first_on_machine(kernels, "side by side"):
        return
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for name in _SHARES:
        program = f"from skysub.pipeline.compilation import compile_share; compile_share({name!r})"
        # nobody waits for it: what it has not compiled by then is compiled when it is called
        child = subprocess.Popen(  # noqa: S603 (this program itself)
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _children.append(child)
        # a thread, so that those that have ended do not stay behind as zombies
        threading.Thread(target=child.wait, daemon=True).start()


def compile_share(name: str) -> None:
    """Compile one share of the kernels, or load them."""
    _SHARES[name]()


def _statistics() -> None:
    config = BackgroundConfig(superpixel=_EDGE // 2)
    grid = SuperpixelGrid.over((_EDGE, _EDGE), config)
    image = np.random.default_rng(1).standard_normal((_EDGE, _EDGE), np.float32)
    superpixel_statistics(image, np.zeros((_EDGE, _EDGE), np.uint8), 1, grid, config)


_SHARES: dict[str, Callable[[], None]] = {
    "statistics": _statistics,
    "cosmic rays": cosmic_rays.compile_once,
    "psf": psf.compile_once,
}


def _processors() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
