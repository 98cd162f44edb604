"""The joint fit of all stars, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.measurement.fitted import Places
from skysub.measurement.overlap import Autocorrelation, Pairs
from skysub.measurement.stars import Tiles, paint, paint_radius, project

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable

__all__ = ["StarModel", "fit_at"]

_STRAY = 1.0
"""Standard deviation, pixel, of the prior on how far a star lies from where it was."""
_LONGEST = 0.5
"""A star moves by no more than this in one step, pixel."""
_FREE = 3.0
"""Flux over its error from which a star may move."""
_SETTLED = 0.05
"""A star has settled when a step changes its flux, and its place, by less than this share of their errors."""
_ITERATIONS = 25
_LIT = 0.1
"""Share of the PSF on good pixels that a flux needs."""


@dataclass(frozen=True, eq=False)
class _Equations:
    """Normal equations of stars (n,), but for what they share with each other."""

    sums: NDArray[np.float64]
    """(n, sums) as `skysub.measurement.fit_kernels.project` has them."""
    noise: NDArray[np.float64]
    norm: NDArray[np.float64]
    """Root of the sum of the PSF's squares over that of a whole PSF; 0 where too little of it is seen."""
    diagonal: NDArray[np.float64]
    """(n, 3, 3): block of each star with itself, the prior on its place included."""
    free: NDArray[np.bool_]
    """Whether a star is bright enough to be moved."""


class StarModel:
    """Stars of a frame, and what is left of the image without them; changed by its methods.

    Attributes
    ----------
    y, x, flux
        (n,) float64: pixel, counts.
    active
        (n,) bool: whether a star has yet to settle.
    judged
        (n,) bool: whether a star was compared with two stars, and with a template.
    saturated
        (n,) bool: whether a star's core is saturated; it is fit by its wings and never left out.
    waiting
        (n,) bool: whether it is to be judged once more when no more stars are looked for.
    residual
        (ny, nx) float32, counts: the image less all stars and ``others``; 0 where a pixel is unusable.
    others
        (ny, nx) float32, counts, or None: light that is no star's.
    """

    def __init__(self, frame: Frame, psf: PsfTable, *, threads: int = 1) -> None:
        self.frame, self.psf, self.threads = frame, psf, threads
        self._core = psf.core
        self.autocorrelation = Autocorrelation.of(psf)
        self.y, self.x, self.flux = np.empty(0), np.empty(0), np.empty(0)
        self.judged, self.waiting = np.empty(0, np.bool_), np.empty(0, np.bool_)
        self.saturated = np.empty(0, np.bool_)
        self.residual = frame.image.copy()
        self.others: NDArray[np.float32] | None = None
        self._unusable = frame.state != 0
        self.residual[self._unusable] = 0
        self.active = np.empty(0, np.bool_)

    def __len__(self) -> int:
        return len(self.y)

    def add(self, y: NDArray[np.float64], x: NDArray[np.float64], *, saturated: bool = False) -> None:
        """Add stars, or saturated ones; the next fit gives them their flux, and moves their neighbours."""
        n = len(self)
        none = np.zeros(len(y))
        self.y, self.x, self.flux = (
            np.concatenate(pair) for pair in ((self.y, y), (self.x, x), (self.flux, none))
        )
        self.judged = np.concatenate([self.judged, none != 0])
        self.waiting = np.concatenate([self.waiting, none != 0])
        self.saturated = np.concatenate([self.saturated, np.full(len(y), saturated)])
        self.active = np.concatenate([self.active, none == 0])
        self._wake(np.arange(n + len(y)) >= n)

    def move(
        self,
        chosen: NDArray[np.int64],
        y: NDArray[np.float64],
        x: NDArray[np.float64],
        flux: NDArray[np.float64],
    ) -> None:
        """Give stars, by index, other places and fluxes; the residual follows."""
        self._repaint(chosen, y, x, flux)
        awake = np.zeros(len(self), np.bool_)
        awake[chosen] = True
        self._wake(awake)

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Leave out all but the chosen stars, (n,) bool; the others' light goes back to the residual."""
        gone = np.nonzero(~chosen)[0]
        self._repaint(gone, self.y[gone], self.x[gone], np.zeros(len(gone)))
        self._wake(~chosen)
        self.y, self.x, self.flux = self.y[chosen], self.x[chosen], self.flux[chosen]
        self.judged, self.active = self.judged[chosen], self.active[chosen]
        self.waiting, self.saturated = self.waiting[chosen], self.saturated[chosen]

    def fit(self, steps: int) -> None:
        """Newton steps of fluxes and places, at once, of the stars that have not settled."""
        from skysub.measurement import pair_kernels as kernels

        for step in range(steps):
            chosen = np.nonzero(self.active)[0]
            if not len(chosen):
                return
            y, x, flux = self.y[chosen], self.x[chosen], self.flux[chosen]
            equations = self._equations(chosen)
            pairs = Pairs.within(y, x, self.autocorrelation.reach, self.frame.shape)
            change = np.empty((len(chosen), 3))
            kernels.conjugate_gradients(
                self.autocorrelation.table,
                4.0,
                equations.norm,
                y,
                x,
                equations.free & ((step > 0) | (flux > 0)),
                equations.diagonal,
                pairs.first,
                pairs.second,
                np.ascontiguousarray(equations.sums[:, :3]),
                _ITERATIONS,
                change,
            )
            new = np.where(equations.norm > 0, np.maximum(flux + change[:, 0], 0.0), 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                moves = np.nan_to_num(change[:, 1:] / new[:, None], nan=0.0, posinf=0.0, neginf=0.0)
                errors = np.abs(change[:, 0]) * equations.norm * np.sqrt(self.autocorrelation.square)
            moves = np.clip(moves, -_LONGEST, _LONGEST)
            signal = new * equations.norm * np.sqrt(self.autocorrelation.square) / equations.noise
            off = np.abs(moves).max(axis=1) * signal > _SETTLED
            restless = off | (errors > _SETTLED * equations.noise) | ~equations.free & (step == 0)
            ny, nx = self.frame.shape
            self._repaint(
                chosen,
                np.clip(y + moves[:, 0], -0.49, ny - 0.51),
                np.clip(x + moves[:, 1], -0.49, nx - 0.51),
                new,
            )
            self.active[chosen] = pairs.spread(restless)

    def subtract(self) -> None:
        """Make the residual anew of the image."""
        frame = self.frame
        self.residual[:] = frame.image
        if self.others is not None:
            self.residual -= self.others
        self._paint(self.residual, -self.flux)
        self.residual[self._unusable] = 0

    def model(self) -> NDArray[np.float32]:
        """Light of all stars and others, (ny, nx) float32."""
        out = np.zeros(self.frame.shape, np.float32) if self.others is None else self.others.copy()
        self._paint(out, self.flux)
        return out

    def painted(self, share: NDArray[np.float64]) -> NDArray[np.float32]:
        """Light of the stars times a share of each, (ny, nx) float32, without the others."""
        out = np.zeros(self.frame.shape, np.float32)
        self._paint(out, self.flux * share)
        return out

    def places(self) -> Places:
        """What the fit tells of each star, with the covariance of its neighbours."""
        from skysub.measurement import pair_kernels as kernels

        equations = self._equations(np.arange(len(self)))
        sums, norm, diagonal = equations.sums, equations.norm, equations.diagonal
        pairs = Pairs.within(self.y, self.x, self.autocorrelation.reach, self.frame.shape)
        starts, partners = pairs.neighbours(len(self))
        spread = np.empty((len(self), 4))
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = sums[:, 9] / sums[:, 3]
            kernels.errors_of_stars(
                self.autocorrelation.table,
                4.0,
                norm,
                self.y,
                self.x,
                np.maximum(self.flux, 1e-30),
                diagonal,
                np.nan_to_num(variance, nan=np.inf),
                starts,
                partners,
                spread,
            )
            flux_error, y_error, x_error = np.sqrt(spread[:, :3]).T
            lost = ~(sums[:, 11] > _LIT)
            return Places(
                y=self.y,
                x=self.x,
                flux=np.where(lost, np.nan, self.flux),
                flux_error=np.where(lost, np.nan, flux_error),
                y_error=np.where(lost, np.nan, y_error),
                x_error=np.where(lost, np.nan, x_error),
                chi2=sums[:, 10] / sums[:, 11],
                good=sums[:, 11],
            )

    def _equations(self, chosen: NDArray[np.int64]) -> _Equations:
        y, x, flux = self.y[chosen], self.x[chosen], self.flux[chosen]
        tiles = Tiles.of(y, x, self.psf, self.frame.shape)
        radius = np.where(self.saturated[chosen], self.psf.half, self._core)
        sums = project(self.residual, self.frame, tiles, self.psf, y, x, radius, threads=self.threads)
        noise = self.frame.noise_at(y, x)
        pp = sums[:, 3]
        norm = np.where(sums[:, 11] > _LIT, np.sqrt(pp / self.autocorrelation.square), 0.0)
        diagonal = np.empty((len(y), 3, 3))
        for k, (a, b) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
            diagonal[:, a, b] = diagonal[:, b, a] = sums[:, 3 + k]
        with np.errstate(divide="ignore", invalid="ignore"):
            free = (norm > 0) & (flux > _FREE * noise / np.sqrt(pp))
            ridge = (noise / (np.maximum(flux, 1e-30) * _STRAY)) ** 2
        diagonal[:, 1, 1] += ridge
        diagonal[:, 2, 2] += ridge
        diagonal[:, 0, 0] *= 1 + 1e-6
        return _Equations(sums=sums, noise=noise, norm=norm, diagonal=diagonal, free=free)

    def _wake(self, changed: NDArray[np.bool_]) -> None:
        """Let stars that changed, and those that overlap with them, take part in the next fit."""
        if changed.any():
            pairs = Pairs.within(self.y, self.x, self.autocorrelation.reach, self.frame.shape)
            self.active |= pairs.spread(changed)

    def _repaint(
        self,
        chosen: NDArray[np.int64],
        y: NDArray[np.float64],
        x: NDArray[np.float64],
        flux: NDArray[np.float64],
    ) -> None:
        """Change stars and take their light off the residual at the new places rather than the old ones."""
        old = self.y[chosen], self.x[chosen], self.flux[chosen]
        noise = self.frame.noise_at(*old[:2])
        reach = np.maximum(paint_radius(old[2], noise, self.psf), paint_radius(flux, noise, self.psf))
        for (at_y, at_x, light), sign in ((old, 1.0), ((y, x, flux), -1.0)):
            tiles = Tiles.of(at_y, at_x, self.psf, self.frame.shape)
            paint(self.residual, tiles, self.psf, at_y, at_x, sign * light, reach, threads=self.threads)
        self.y[chosen], self.x[chosen], self.flux[chosen] = y, x, flux
        self.residual[self._unusable] = 0

    def _paint(self, image: NDArray[np.float32], flux: NDArray[np.float64]) -> None:
        tiles = Tiles.of(self.y, self.x, self.psf, self.frame.shape)
        radius = paint_radius(flux, self.frame.noise_at(self.y, self.x), self.psf)
        paint(image, tiles, self.psf, self.y, self.x, flux, radius, threads=self.threads)


def fit_at(
    frame: Frame,
    psf: PsfTable,
    light: NDArray[np.float32],
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    *,
    threads: int = 1,
) -> Places:
    """Flux of the PSF at each of some places by itself, on the image ``light``; places stay."""
    tiles = Tiles.of(y, x, psf, frame.shape)
    sums = project(light, frame, tiles, psf, y, x, np.full(len(y), psf.core), threads=threads)
    with np.errstate(divide="ignore", invalid="ignore"):
        flux = np.where(sums[:, 11] > _LIT, sums[:, 0] / sums[:, 3], np.nan)
        variance = sums[:, 9] / sums[:, 3]
        return Places(
            y=y,
            x=x,
            flux=flux,
            flux_error=np.sqrt(variance / sums[:, 3]),
            y_error=np.sqrt(variance / sums[:, 6]) / np.abs(flux),
            x_error=np.sqrt(variance / sums[:, 8]) / np.abs(flux),
            chi2=sums[:, 10] / sums[:, 11],
            good=sums[:, 11],
        )
