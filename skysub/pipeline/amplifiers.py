"""Steps and drift of amplifiers beside the sky of one image: when to look, and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.background.amplifiers import Amplifier
from skysub.background.chebyshev import monomial_coefficients
from skysub.background.rows import made_rows
from skysub.pipeline.amplifier_cells import Cells, Lattice, measure_cells
from skysub.pipeline.amplifier_fit import fit_amplifiers, rough_steps, worth_fitting
from skysub.sources.flags import COSMIC_RAY, IGNORED, NOT_SKY, SATURATED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.background.amplifiers import AmplifierBackground
    from skysub.background.model import Background

__all__ = ["Amplifiers", "with_amplifiers"]

_LIMIT = 4.0
"""Residual, in units of the noise per pixel, beyond which a pixel is left out."""
_ROUGH_ROWS = 4
"""The rough look is at every so many rows."""
_SETTLED = 0.5
"""Largest change, in errors, of an answer that has settled."""


class Amplifiers:
    """What the amplifiers of an image add to it, as far as is known so far.

    Parameters
    ----------
    amplifiers
        Their pixels; where there is none the image counts as one amplifier's.
    shape
        Of the image (ny, nx), pixel.
    """

    def __init__(self, amplifiers: Sequence[Amplifier], shape: tuple[int, int]) -> None:
        whole = (Amplifier("detector", y=(0, shape[0]), x=(0, shape[1])),)
        self._lattice = Lattice.of(amplifiers or whole)
        self.layer: AmplifierBackground | None = None

    @property
    def summary(self) -> str:
        """What was found, for people."""
        layer = self.layer
        if layer is None:
            return ""
        end = "the background includes them as a layer of its own."
        drift = f"by {np.sqrt(np.mean(np.concatenate(layer.drift) ** 2)):.2g} rms" if layer.drift else ""
        if len(layer.amplifiers) == 1:
            return f"Levels of rows drift {drift}; {end}"
        drift = drift and f", and the rows of each drift {drift}"
        steps = f"Steps of up to {np.ptp(layer.steps):.2g} between {len(layer.amplifiers)} amplifiers"
        return f"{steps}{drift}; {end}"

    def look_roughly(
        self, image: NDArray[np.float32], flags: NDArray[np.uint8], guess: Background, noise: float
    ) -> bool:
        """Look for steps before sources are masked; whether there are any."""
        if self._lattice is None or len(self._lattice.amplifiers) == 1 or not noise > 0:
            return False
        cells = self._cells(image, flags, IGNORED | SATURATED, guess, noise, step=_ROUGH_ROWS)
        self.layer = rough_steps(cells, noise)
        return self.layer is not None

    def look(
        self, image: NDArray[np.float32], flags: NDArray[np.uint8], sky: Background, noise: float
    ) -> bool:
        """Look for steps and drift in an image without `layer`, sources masked; whether `layer` changed."""
        if self._lattice is None or not noise > 0:
            return False
        cells = self._cells(image, flags, NOT_SKY, sky, noise)
        before = self.layer
        if before is None and not worth_fitting(cells, noise):
            return False
        found = fit_amplifiers(cells, noise, order=sky.config.order, known=before)
        if _settled(before, found):
            return False
        self.layer = found
        return True

    def taken_off(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """The image without `layer`, a new array; the image itself where there is none."""
        if self.layer is None:
            return image
        without: NDArray[np.float32] = made_rows(_subtract, (image,), np.float32, layer=self.layer)
        return without

    def _cells(
        self,
        image: NDArray[np.float32],
        flags: NDArray[np.uint8],
        ignored: int,
        sky: Background,
        noise: float,
        *,
        step: int = 1,
    ) -> Cells:
        assert self._lattice is not None
        monomials = monomial_coefficients(sky.coefficients, sky.order)
        return measure_cells(image, flags, ignored, monomials, self._lattice, limit=_LIMIT * noise, step=step)


def _subtract(
    rows: range,
    out: NDArray[np.float32],
    image: NDArray[np.float32],
    *,
    layer: AmplifierBackground,
    threads: int,
) -> None:
    del threads
    cut = slice(rows.start, rows.stop)
    layer.subtract(image[cut], out[cut], y0=rows.start)


def _settled(before: AmplifierBackground | None, after: AmplifierBackground | None) -> bool:
    """Whether an answer changes by little of its own errors, if at all."""
    if before is None or after is None:
        return before is after
    if bool(before.drift) != bool(after.drift):
        return False
    (old, _), (new, errors) = before.as_array(), after.as_array()
    return bool(np.all(np.abs(new - old) <= _SETTLED * errors))


def with_amplifiers(
    rows: range,
    out: NDArray[np.float32],
    image: NDArray[np.float32],
    whole: NDArray[np.float32],
    flags: NDArray[np.uint8],
    *,
    layer: AmplifierBackground,
    threads: int,
) -> None:
    """``whole``, and where cosmic rays hit the ``image`` without them, with what amplifiers add."""
    del threads
    cut = slice(rows.start, rows.stop)
    hit = (flags[cut] & COSMIC_RAY) != 0
    out[cut] = np.where(hit, image[cut] + layer.evaluate(y=cut), whole[cut])
