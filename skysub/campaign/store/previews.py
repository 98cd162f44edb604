"""Previews as text, for markers: numbers of half precision, shares in 255ths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.campaign.store.backgrounds import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["packed_preview", "unpacked_preview"]

_SHARES = ("sources", "defects")


def packed_preview(preview: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Return a preview as text; its numbers keep eleven bits, its shares eight."""
    kept: dict[str, Any] = {}
    for name, values in preview.items():
        if name in _SHARES:
            kept[name] = packed(np.rint(255 * values).astype(np.uint8))
            continue
        known = np.abs(values[np.isfinite(values)])
        # the largest number of half precision is 65504
        most = float(known.max()) if known.size else 0.0
        scale = most / 60000 if most > 0 else 1.0
        kept[name] = {**packed((values / np.float32(scale)).astype(np.float16)), "scale": scale}
    return kept


def unpacked_preview(kept: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Return the preview that `packed_preview` wrote, arrays (gy, gx) float32."""
    return {
        name: unpacked(text).astype(np.float32) * np.float32(1 / 255 if name in _SHARES else text["scale"])
        for name, text in kept.items()
    }
