"""The joint fit of all stars, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.measurement.fitted import Places
from skysub.measurement.frame import UNUSABLE
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
_ITERATIONS = 25
_LIT = 0.1
"""Share of the PSF on good pixels that a flux needs."""


class StarModel:
    """Stars of a frame, and what is left of the image without them; changed by its methods.

    Attributes
    ----------
    y, x, flux
        (n,) float64: pixel, counts.
    judged
        (n,) bool: whether a star was compared with two stars, and with a template.
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
        self.judged = np.empty(0, np.bool_)
        self.residual = frame.image.copy()
        self.others: NDArray[np.float32] | None = None
        self._unusable = (frame.state & UNUSABLE) != 0
        self._sums: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.y)

    def add(
        self, y: NDArray[np.float64], x: NDArray[np.float64], flux: NDArray[np.float64] | None = None
    ) -> None:
        """Add stars; without a flux, they get it from the next fit."""
        flux = np.zeros(len(y)) if flux is None else flux
        self.y, self.x, self.flux = (
            np.concatenate(pair) for pair in ((self.y, y), (self.x, x), (self.flux, flux))
        )
        self.judged = np.concatenate([self.judged, np.zeros(len(y), np.bool_)])
        self._sums = None

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Leave out all but the chosen stars, (n,) bool; the residual is that of the stars before."""
        self.y, self.x, self.flux = self.y[chosen], self.x[chosen], self.flux[chosen]
        self.judged = self.judged[chosen]
        self._sums = None

    def fit(self, steps: int, *, move: bool = True) -> None:
        """Newton steps of fluxes and places of all stars at once."""
        from skysub.measurement import pair_kernels as kernels

        for step in range(steps):
            sums, noise, norm, diagonal, free = self._equations(move=move)
            pairs = Pairs.within(self.y, self.x, self.autocorrelation.reach, self.frame.shape)
            change = np.empty((len(self), 3))
            kernels.conjugate_gradients(
                self.autocorrelation.table,
                4.0,
                norm,
                self.y,
                self.x,
                free & (step > 0 or steps == 1),
                diagonal,
                pairs.first,
                pairs.second,
                np.ascontiguousarray(sums[:, :3]),
                _ITERATIONS,
                change,
            )
            self.flux = np.where(norm > 0, np.maximum(self.flux + change[:, 0], 0.0), 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                moves = np.nan_to_num(change[:, 1:] / self.flux[:, None], nan=0.0, posinf=0.0, neginf=0.0)
            moves = np.clip(moves, -_LONGEST, _LONGEST)
            ny, nx = self.frame.shape
            self.y = np.clip(self.y + moves[:, 0], -0.49, ny - 0.51)
            self.x = np.clip(self.x + moves[:, 1], -0.49, nx - 0.51)
            self._sums = None
            self.subtract()

    def subtract(self) -> None:
        """Make the residual anew of the image."""
        frame, psf = self.frame, self.psf
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

        sums, _, norm, diagonal, _ = self._equations(move=True)
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

    def _equations(self, *, move: bool):  # noqa: ANN202
        """Sums over stamps, noise, norm, diagonal blocks with the prior, and which stars may move."""
        if self._sums is None:
            tiles = Tiles.of(self.y, self.x, self.psf, self.frame.shape)
            radius = np.full(len(self), self._core)
            self._sums = project(
                self.residual, self.frame, tiles, self.psf, self.y, self.x, radius, threads=self.threads
            )
        sums = self._sums
        noise = self.frame.noise_at(self.y, self.x)
        pp = sums[:, 3]
        norm = np.where(sums[:, 11] > _LIT, np.sqrt(pp / self.autocorrelation.square), 0.0)
        diagonal = np.empty((len(self), 3, 3))
        for k, (a, b) in enumerate(((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))):
            diagonal[:, a, b] = diagonal[:, b, a] = sums[:, 3 + k]
        with np.errstate(divide="ignore", invalid="ignore"):
            free = (norm > 0) & (self.flux > _FREE * noise / np.sqrt(pp)) & move
            ridge = (noise / (np.maximum(self.flux, 1e-30) * _STRAY)) ** 2
        diagonal[:, 1, 1] += ridge
        diagonal[:, 2, 2] += ridge
        diagonal[:, 0, 0] *= 1 + 1e-6
        return sums, noise, norm, diagonal, free

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
    """Flux of the PSF at each of some places by itself, on the image ``light``; places stay where they are."""
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
