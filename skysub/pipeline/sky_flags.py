"""What a person should know of a sky and its mask, by short names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from skysub.sources.mask import BARE, DARKEST_LEFT, FALLBACK_SHARES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from skysub.background.robust import RobustFit
    from skysub.pipeline.config import SkyConfig
    from skysub.sources.mask import SourceMask

__all__ = ["quality_flags_of"]

_FLAGGED_ABOVE = 0.005
"""Share of superpixels without sky, or over which the model must extrapolate, before that is said."""


def quality_flags_of(
    fit: RobustFit,
    mask: SourceMask,
    noise: NDArray[np.float64],
    config: SkyConfig,
    *,
    moved: float,
    ran_away: bool,
    bare: bool,
    structure: float,
) -> dict[str, str]:
    """Sentences about a sky by the names of their flags; see `skysub.pipeline.sky.find_sky`.

    Parameters
    ----------
    moved
        How far the last turn moved the model, in its own errors.
    ran_away
        The mask grew until it left no sky.
    bare
        Faint extended light was not masked.
    structure
        Of the sky that the background does not follow, unit of the image.
    """
    quality_flags: dict[str, str] = {}
    model = fit.background
    outside = float(fit.extrapolated.mean())
    if outside > _FLAGGED_ABOVE:
        worst, typical = float(fit.deviation[fit.extrapolated].max()), float(np.median(fit.deviation))
        quality_flags["background_extrapolated"] = (
            f"No sky was seen in {100 * outside:.1f} % of the detector; the background is extrapolated "
            f"there, with an uncertainty of up to {worst:.3g} ({typical:.3g} elsewhere)."
        )
    if model.reduced:
        quality_flags["background_order_reduced"] = (
            f"The background is simpler than asked for: {model.reduced}."
        )
    if mask.fallback_level == DARKEST_LEFT:
        quality_flags["crowded"] = (
            "The field is so crowded that sources leave no sky between them; the background was measured on "
            f"the {100 * config.mask.darkest:.0f} % of the pixels with the darkest surroundings, and lies "
            "too high by what starlight is left there."
        )
    elif mask.fallback_level >= BARE:
        left_out = "" if config.mask.extended is None else ", and faint extended light is not masked"
        growth = 100 * FALLBACK_SHARES[mask.fallback_level]
        quality_flags["mask_budget"] = (
            f"Sources leave little sky between them: they are masked with {growth:.0f} % "
            f"of their growth{left_out}, so that superpixels keep some sky; expect the background to lie "
            "too high."
        )
    if mask.starved > _FLAGGED_ABOVE * mask.good.size:
        quality_flags["superpixels_starved"] = (
            "Sources leave too little sky in one superpixel, which was not used."
            if mask.starved == 1
            else f"Sources leave too little sky in {mask.starved} superpixels, which were not used."
        )
    if structure:
        quality_flags["sky_structure"] = (
            f"The sky has structure of about {structure:.2g} that the background does not follow; its "
            "uncertainty includes it, and faint extended light of that brightness cannot be told from it."
        )
    if ran_away:
        quality_flags["mask_ran_away"] = (
            "From turn to turn the source mask grew until it left no sky, as it does where the sky has "
            "structure that the background does not follow; "
            + ("faint extended light is not masked." if bare else "the last mask that left some was kept.")
        )
    elif moved >= config.tolerance:
        quality_flags["background_not_converged"] = (
            f"After {config.passes} passes the background still moved by {moved:.1f} of its own errors."
        )
    if not np.isfinite(noise).any():
        quality_flags["no_noise"] = "The pixels show no noise, so that no source could be told from the sky."
    return quality_flags
