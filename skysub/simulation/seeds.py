"""One random stream per component, so that changing one leaves every other as it was."""

from __future__ import annotations

import zlib

import numpy as np

__all__ = ["random_stream"]


def random_stream(seed: int, component: str, *where: int) -> np.random.Generator:
    """Random numbers of one component at one place.

    Parameters
    ----------
    seed
        Seed of the whole simulation, 0 or more.
    component
        Name of the component, such as ``"galaxies"``.
    where
        What the component belongs to: nothing or a tile of sky for what stays on the sky, the visit for
        what lies over the focal plane, visit and detector for noise and cosmic rays. Negative numbers
        are allowed.

    Returns
    -------
    stream
        Depends on the arguments alone: not on the order of calls, nor on the process.
    """
    entropy = [seed, zlib.crc32(component.encode()), *(number + 2**31 for number in where)]
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(entropy)))
