"""Extended sources: which ones they are, and templates of their light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from skysub.measurement.crowding import DENSE
from skysub.measurement.crowding import crowding as crowding_at
from skysub.measurement.photometry import Targets, shapes_at
from skysub.measurement.stars import Tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.measurement.config import MeasurementConfig
    from skysub.measurement.frame import Frame
    from skysub.measurement.local_psf import PsfTable
    from skysub.measurement.solve import StarModel

__all__ = ["CandidateFits", "Templates", "fit_candidates", "smallest_scales", "take_extended"]

_SMALLEST, _LARGEST, _WIDEST = 10, 100, 127
"""Half-width of the window that a template is fit in, and of the widest that it may have later, pixel; less
than half a tile, so that rows of tiles are apart."""
_WINDOW = 4.0
"""Half-width of a window in units of the source's longer axis."""
_LOST = 0.1
"""Light per pixel that is lost in the noise, in units of it."""
_PLAIN, _LARGE = 15, 60
"""Half-width of the window of a source that has no structure, and of one that may have much, pixel."""
_WIDER, _SURE = 0.03, 2.5
"""A candidate is wider than the PSF by this share, and by so many errors."""
_BRIGHT = 6.0
"""Signal over noise of a candidate."""
_VERY_WIDE = 1.6
"""Size in units of the PSF's of what is no blend of a few stars."""
_GAIN = 12.0
"""Least gain in chi2 that makes a star two stars or a template, which have three parameters more."""


@dataclass(frozen=True, eq=False)
class Templates:
    """Templates of extended sources, (n, ...) arrays as `skysub.measurement.extended_kernels` has them."""

    shapes: NDArray[np.float64]
    """(n, 7): amplitude, y, x, log of the squared radius, two elements of the shape, power."""
    factors: NDArray[np.float64]
    """(n, rings): factor of the profile by elliptical radius."""
    halves: NDArray[np.int64]
    """(n,) half-width of the window, pixel."""

    @classmethod
    def none(cls) -> Templates:
        """No template."""
        from skysub.measurement import extended_kernels as kernels

        return cls(np.empty((0, kernels.SHAPE)), np.empty((0, kernels.RINGS)), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.halves)

    @property
    def y(self) -> NDArray[np.float64]:
        """(n,) pixel."""
        return self.shapes[:, 1].copy()

    @property
    def x(self) -> NDArray[np.float64]:
        """(n,) pixel."""
        return self.shapes[:, 2].copy()

    def with_more(self, other: Templates) -> Templates:
        """These and others."""
        return Templates(
            np.concatenate([self.shapes, other.shapes]),
            np.concatenate([self.factors, other.factors]),
            np.concatenate([self.halves, other.halves]),
        )

    def of(self, chosen: NDArray[np.bool_]) -> Templates:
        """Some of them."""
        return Templates(self.shapes[chosen], self.factors[chosen], self.halves[chosen])

    def imperfection(self, most: float) -> NDArray[np.float64]:
        """Share of their light that they may miss, (n,): large sources have arms, small ones none."""
        return most * np.clip((self.halves - _PLAIN) / (_LARGE - _PLAIN), 0.25, 1.0)

    def widened(self, frame: Frame) -> Templates:
        """The same in windows that reach to where their light is lost in the noise, or as far as may be."""
        from skysub.measurement import extended_kernels as kernels

        amplitude, y, x, s, g1, g2, power = self.shapes.T
        k = np.arange(kernels.RINGS)
        radii = k / kernels.PER_RING
        outer = kernels.GROWTH ** np.maximum(k - kernels.NARROW, 0)
        radii = np.where(k < kernels.NARROW, radii, kernels.NARROW / kernels.PER_RING * outer)
        light = amplitude[:, None] * self.factors * (1 + radii**2) ** -power[:, None]
        seen = light > _LOST * np.nan_to_num(frame.noise_at(y, x), nan=np.inf)[:, None]
        edge = radii[np.minimum(kernels.RINGS - np.argmax(seen[:, ::-1], axis=1), kernels.RINGS - 1)]
        # half of the box about an ellipse
        reach = np.where(seen.any(axis=1), edge, 0) * np.sqrt(
            np.exp(s) * (1 + np.abs(g1)) / (1 - g1**2 - g2**2)
        )
        wide = np.clip(np.ceil(reach), 0, _WIDEST).astype(np.int64)
        return Templates(self.shapes, self.factors, np.maximum(self.halves, wide))

    def painted(
        self, shape: tuple[int, int], share: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32] | None:
        """Their light times a share of each, (ny, nx) float32; None where there are none."""
        from skysub.measurement import extended_kernels as kernels

        if not len(self):
            return None
        share = np.ones(len(self)) if share is None else share
        out = np.zeros(shape, np.float32)
        kernels.paint_extended(self.shapes, self.factors, self.halves, share, out)
        return out

    def repainted(self, other: Templates, residual: NDArray[np.float32]) -> Templates:
        """Take the others' light off a residual rather than these templates'; returns the others."""
        for templates, sign in ((self, 1.0), (other, -1.0)):
            light = templates.painted((residual.shape[0], residual.shape[1]), np.full(len(templates), sign))
            if light is not None:
                residual += light
        return other

    def refit(self, residual: NDArray[np.float32], frame: Frame, psf: PsfTable, *, threads: int = 1) -> None:
        """Fit each again on what is left by the others; the residual is brought up to date."""
        from skysub.measurement import extended_kernels as kernels

        if not len(self):
            return
        tiles = Tiles.of(self.y, self.x, psf, frame.shape)
        tiles.each_row(
            lambda rows: kernels.refit_extended(
                tiles.starts,
                tiles.order,
                len(tiles.nodes_x),
                rows,
                self.shapes,
                self.factors,
                self.halves,
                smallest_scales(psf),
                residual,
                frame.variance,
                frame.state,
            ),
            threads,
        )


def smallest_scales(psf: PsfTable) -> NDArray[np.float64]:
    """(powers,): log of the squared radius of a profile of each power with the half-width of the PSF."""
    from skysub.measurement.extended_kernels import POWERS

    width = 1.1774 * psf.sigma
    return np.array([np.log(width**2 / (2 ** (1 / p) - 1)) for p in POWERS]) - 0.2


def take_extended(
    model: StarModel, templates: Templates, config: MeasurementConfig, *, early: bool = False
) -> Templates:
    """Look at stars that were not judged before: some become two stars, some templates.

    Parameters
    ----------
    early
        Whether the residual is still to be searched: where stars are dense, all but very wide ones wait.

    Returns
    -------
    templates
        Those there were, and the new ones, whose light is taken off the residual; the stars they stand for
        are gone from the model.
    """
    frame, psf = model.frame, model.psf
    crowding = crowding_at(frame, psf, model.y, model.x, model.y, model.x)
    before = model.judged.copy()
    if not early:
        model.judged &= ~model.waiting
    chosen, moments = _candidates(model, crowding, early=early)
    model.judged[:] = True
    model.waiting[:] = early & (model.waiting | ~before) & (crowding >= DENSE)
    if not len(chosen):
        return templates
    y, x, flux = model.y[chosen], model.x[chosen], model.flux[chosen]
    fit = fit_candidates(model, y, x, flux, moments)
    chi2, pairs = fit.chi2, fit.pairs
    with np.errstate(divide="ignore", invalid="ignore"):
        signal = flux / (frame.noise_at(y, x) * np.sqrt(psf.values_at(psf.area, y, x)))
    least = _GAIN + (config.psf_imperfection * signal) ** 2
    # what two stars cost against a template: by how rarely stars lie so close there
    penalty = -2 * np.log(np.clip(crowding[chosen], 1e-3, 1.0))
    best = np.minimum(chi2[:, 1] + penalty, chi2[:, 2])
    changed = best < chi2[:, 0] - least
    is_pair = changed & (chi2[:, 1] + penalty < chi2[:, 2])
    is_extended = changed & ~is_pair
    pair = chosen[is_pair]
    light, at_y, at_x = pairs[is_pair, :3].T
    model.move(pair, at_y, at_x, light)
    n = len(model)
    model.add(pairs[is_pair, 4].copy(), pairs[is_pair, 5].copy())
    model.move(np.arange(n, len(model)), model.y[n:], model.x[n:], pairs[is_pair, 3])
    model.judged[n:] = True
    gone = np.zeros(len(model), np.bool_)
    gone[chosen[is_extended]] = True
    model.keep(~gone)
    new = fit.templates.of(is_extended).widened(frame)
    light_of_new = new.painted(frame.shape)
    if light_of_new is not None:
        model.residual -= light_of_new
    return templates.with_more(new)


@dataclass(frozen=True, eq=False)
class CandidateFits:
    """One star, two stars and a template, fit to each candidate (n,)."""

    chi2: NDArray[np.float64]
    """(n, 4): of one star, two, and the template; and the pixels they are compared on."""
    pairs: NDArray[np.float64]
    """(n, 6): flux, y, x of two stars."""
    templates: Templates


def fit_candidates(
    model: StarModel,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    flux: NDArray[np.float64],
    moments: NDArray[np.float64],
) -> CandidateFits:
    """Fit candidates at (y, x), whose stars of ``flux`` are put back to the residual, with moments (n, 3)."""
    from skysub.measurement import extended_kernels as kernels

    frame, psf = model.frame, model.psf
    long = 0.5 * (moments[:, 0] + moments[:, 2]) + np.hypot(
        0.5 * (moments[:, 0] - moments[:, 2]), moments[:, 1]
    )
    halves = np.clip(np.ceil(_WINDOW * np.sqrt(long)), _SMALLEST, _LARGEST).astype(np.int64)
    n = len(y)
    chi2, pairs = np.full((n, 4), np.inf), np.zeros((n, 6))
    shapes, factors = np.zeros((n, kernels.SHAPE)), np.ones((n, kernels.RINGS))
    if n:
        tiles = Tiles.of(y, x, psf, frame.shape)
        tiles.each_row(
            lambda rows: kernels.compare_models(
                psf.table,
                tiles.nodes_y,
                tiles.nodes_x,
                tiles.starts,
                tiles.order,
                rows,
                y,
                x,
                flux,
                moments,
                halves,
                smallest_scales(psf),
                model.residual,
                frame.variance,
                frame.state,
                chi2,
                shapes,
                factors,
                pairs,
            ),
            model.threads,
        )
    return CandidateFits(chi2=chi2, pairs=pairs, templates=Templates(shapes, factors, halves))


def _candidates(
    model: StarModel, crowding: NDArray[np.float64], *, early: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices of stars wider than the PSF, (n,), and their moments (n, 3)."""
    frame, psf = model.frame, model.psf
    asked = np.nonzero(~model.judged & (model.flux > 0))[0]
    y, x, flux = model.y[asked], model.x[asked], model.flux[asked]
    shapes = shapes_at(frame, psf, model.residual, Targets.stars(y, x, flux), threads=model.threads)
    xx, xy, yy = shapes[:, 2:5].T
    known = psf.sigma**2 * np.array([1.0, 0.0, 1.0])
    pxx, pxy, pyy = (
        np.nan_to_num(psf.values_at(m, y, x), nan=k) for m, k in zip(psf.moments, known, strict=True)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(shapes[:, 6]) * frame.noise_at(y, x)
        size = (np.maximum(xx * yy - xy**2, 0) / (pxx * pyy - pxy**2)) ** 0.25
        signal = flux / (frame.noise_at(y, x) * np.sqrt(psf.values_at(psf.area, y, x)))
        wide = (shapes[:, 7] > 0) & (size > 1 + _WIDER) & (size - 1 > _SURE * 0.5 * error / shapes[:, 5])
        wide &= signal > _BRIGHT
        if early:
            wide &= (size > _VERY_WIDE) | (crowding[asked] < DENSE)
        # no Gaussian weight settles on it: far from a star
        lost = (shapes[:, 7] == 0) & (signal > 2 * _BRIGHT)
    moments = np.where(lost[:, None], 4 * np.column_stack([pxx, pxy, pyy]), shapes[:, 2:5])
    kept = wide | lost
    return asked[kept], np.ascontiguousarray(moments[kept])
