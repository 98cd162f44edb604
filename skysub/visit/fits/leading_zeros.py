"""Count of leading zeros for compiled kernels."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["leading_zeros"]


@intrinsic
def leading_zeros(typing_context: Any, word: Any) -> Any:  # noqa: ARG001
    """Number of zeros before the first one bit of a uint64; 64 for 0."""
    if word != types.uint64:
        return None

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.ctlz(values[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate
