"""The table of scores as Markdown: a section for each kind of scene, a row for each method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from foreign.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from foreign.score import Score

__all__ = ["write_report"]


_HEAD = """# Skies that were not tuned for

Written by `benchmarks/foreign_skies.py`. The scenes are made by GalSim and NumPy in `benchmarks/foreign`,
which shares no code with `skysub.simulation`. Detectors of {shape} pixels, variant {variant}, seeds
{seeds}; a figure is the median over the seeds, a worst one their largest.

## What is measured

d is model - true sky, electron per pixel. The true sky holds fringes, ghosts, amplifier offsets and row
drift where a kind has them; galaxies, stars and cirrus are light that a background must leave alone.

- **rms**, **max**: of d about its mean, averaged over cells of 128 pixels that have at least half of
  their pixels.
- **T1**, **T2**: mean d against the sky alone, and against the sky plus the light of undetected sources:
  those whose matched-filter signal is below 5 times the noise. **T2 /sigma** is in 10^-3 of the noise per
  pixel, whose value stands above each table.
- **pull**: rms over cells of (d - its mean) / the model's own uncertainty. **level pull**: T2 / the
  median uncertainty.
- **masked**: share of pixels left out as sources.
- **lost**: sum of d within 2 half-light radii of the large object, above the mean d beyond 4 radii (or in
  the farthest tenth of the pixels), over the object's light there, %.
- **cirrus**: power of the cirrus on scales of up to 2 arcmin after subtraction, over its power. What a
  polynomial of degree 6 follows of it counts as sky: nothing in one image tells the two apart.
- **order 6** above each table: rms by which such a polynomial misses the true sky when there is neither
  noise nor source.

## Methods

- `default`, `lsst`: `skysub.calibrate_image` as it ships, without its search for cosmic rays and its PSF.
- `plain`: `skysub.fit_background` with nothing left out but defects.
- `oracle`: knows the detected sources. Pixels where their light exceeds 0.05 of the noise are left out
  (the limit is doubled until half of the pixels remain), what light of theirs the others hold is
  subtracted, and the robust fit of `default` follows. `oracle_plain`: the same with the fit of `plain`.
- `sep`, `sep256`: meshes of 64 and 256 pixels, `photutils`: `Background2D` of 64 pixels; each leaves out
  sources of 5 sigma after smoothing by the PSF, grown by 4 pixels.

## Kinds

{kinds}
"""

_COLUMNS = (
    ("rms", "rms", "median", "{:.3f}"),
    ("worst rms", "rms", "worst", "{:.3f}"),
    ("max", "largest", "worst", "{:.2f}"),
    ("T1", "level_t1", "median", "{:+.3f}"),
    ("T2", "level_t2", "median", "{:+.3f}"),
    ("T2 /sigma", "level_t2", "noise", "{:+.1f}"),
    ("pull", "pull", "median", "{:.2f}"),
    ("worst pull", "pull", "worst", "{:.2f}"),
    ("level pull", "level_pull", "median", "{:+.1f}"),
    ("masked", "masked", "median", "{:.2f}"),
    ("lost %", "lost", "median", "{:+.1f}"),
    ("cirrus", "cirrus", "median", "{:.2f}"),
)


def write_report(
    results: Mapping[str, Mapping[str, Sequence[Score]]],
    floors: Mapping[str, float],
    *,
    shape: tuple[int, int],
    variant: str,
    seeds: Sequence[int],
) -> str:
    """Return the page.

    Parameters
    ----------
    results
        Scores of each seed by kind and method.
    floors
        What a polynomial of order 6 misses of each kind's true sky, electron.
    """
    about = "\n".join(f"- `{name}`: {KINDS[name].about}." for name in results)
    parts = [
        _HEAD.format(
            shape=f"{shape[0]} x {shape[1]}",
            variant=variant,
            seeds=", ".join(map(str, seeds)),
            kinds=about,
        )
    ]
    for kind, methods in results.items():
        scores = [score for found in methods.values() for score in found]
        sigma = float(np.median([score.sigma for score in scores]))
        columns = [c for c in _COLUMNS if any(np.isfinite(getattr(score, c[1])) for score in scores)]
        lines = [f"### {kind}", "", f"Noise {sigma:.1f} e-; order 6 misses {floors[kind]:.3f} e-.", ""]
        lines.append("| method | " + " | ".join(c[0] for c in columns) + " | flags |")
        lines.append("| --- " * (len(columns) + 2) + "|")
        for method, found in methods.items():
            flags = sorted({flag for score in found for flag in score.flags})
            cells = [_cell(found, *column[1:]) for column in columns]
            lines.append(f"| {method} | " + " | ".join(cells) + f" | {' '.join(flags)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _cell(found: Sequence[Score], name: str, kind: str, style: str) -> str:
    values = np.array([1e3 * s.by_noise(name) if kind == "noise" else getattr(s, name) for s in found])
    if not np.isfinite(values).any():
        return "-"
    return style.format(np.nanmax(values) if kind == "worst" else np.nanmedian(values))
