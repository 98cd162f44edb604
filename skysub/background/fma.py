"""Fused multiply-add for compiled kernels."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

__all__ = ["fma"]


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ARG001
    """``a * b + c`` of three float64 or three float32, rounded once.

    One instruction on every processor since about 2013 and correctly rounded on all others, so the bits
    do not depend on the machine, as they would if the compiler were free to contract.
    """
    if not (a in {types.float32, types.float64} and b == a and c == a):
        return None

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return a(a, a, a), generate
