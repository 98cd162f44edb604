"""Check what users pass as an image and as pixels to ignore, and bring it into working form."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import InvalidImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["checked_ignored", "checked_image", "working_dtype"]

_NO_MASK = np.empty((0, 0), np.uint8)


def working_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type in which an image of ``dtype`` is worked on and returned: native float32 or float64.

    float16, bool-free integers of up to 16 bits and float32 become float32; float64, longdouble and
    wider integers float64.

    Raises
    ------
    InvalidImageError
        For types that are not real numbers.
    """
    if dtype.kind not in "iuf":
        raise InvalidImageError(f"an image must hold real numbers, not {dtype}; convert it to float32 first")
    exact_in_float32 = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if exact_in_float32 else np.float64)


def checked_image(image: Any) -> NDArray[np.floating]:
    """Image as native float32 or float64, (ny, nx); copied only where its type is another."""
    if isinstance(image, np.ma.MaskedArray):
        raise InvalidImageError("a masked array hides its mask: pass image.data, and image.mask as `ignored`")
    if isinstance(image, (str, os.PathLike)):
        raise InvalidImageError(
            f"an image is an array, not a path: pass skysub.read_visit_image({os.fspath(image)!r}).image"
        )
    if hasattr(image, "image") and hasattr(image, "planes"):
        raise InvalidImageError(
            "a visit image is more than an array: pass visit_image.image, and as `ignored` "
            "(visit_image.mask, visit_image.bits('BAD', ...))"
        )
    pixels = np.asarray(image)
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise InvalidImageError(
            f"an image must have shape (ny, nx) with at least one pixel, not {pixels.shape}"
        )
    return pixels.astype(working_dtype(pixels.dtype), copy=False)


def checked_ignored(ignored: Any, shape: tuple[int, int]) -> tuple[NDArray[np.unsignedinteger], int]:
    """Unsigned mask and bits to test, from None, bool or ``(mask, bits)``; an empty mask means none."""
    if ignored is None:
        return _NO_MASK, 0
    if isinstance(ignored, tuple):
        if len(ignored) != 2:
            raise InvalidImageError(
                f"ignored must be None, a bool array or (mask, bits), not {len(ignored)} items"
            )
        mask, bits = np.asarray(ignored[0]), ignored[1]
        if mask.dtype.kind not in "iu":
            raise InvalidImageError(f"the mask of (mask, bits) must be of integers, not {mask.dtype}")
        if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)):
            names = bits if isinstance(bits, (tuple, list)) else (bits,)
            named = bool(names) and all(isinstance(name, str) for name in names)
            hint = f"; use visit_image.bits({', '.join(map(repr, names))})" if named else ""
            raise InvalidImageError(f"the bits of (mask, bits) must be one integer, not {bits!r}{hint}")
        bits = int(bits)
    else:
        mask, bits = np.asarray(ignored), 1
        if mask.dtype != np.bool_:
            raise InvalidImageError(f"ignored must be of bool, not {mask.dtype}; pass planes as (mask, bits)")
        mask = mask.view(np.uint8)
    if mask.shape != shape:
        raise InvalidImageError(f"Shape of the mask {mask.shape} does not match that of the image {shape}")
    if not mask.dtype.isnative:
        mask = mask.astype(mask.dtype.newbyteorder("="))
    width = 8 * mask.dtype.itemsize
    if not -(1 << (width - 1)) <= bits < 1 << width:
        raise InvalidImageError(f"bits {bits:#x} do not fit into the mask's type {mask.dtype}")
    # unsigned, so that a sign bit is a bit like the others
    return mask.view(f"u{mask.dtype.itemsize}"), bits & ((1 << width) - 1)
