"""Scenes: an image as a detector would give it, and every part of the truth about it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from foreign import detector, large, skies, sources
from foreign.kinds import KINDS, Kind, kind_of, stream
from skysub.background.amplifiers import Amplifier
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

__all__ = ["KINDS", "Scene", "make_scene"]

_VERSION = 2
"""Of the cache: raise it when scenes change."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """An exposure and its truth; all planes (ny, nx) float32 in electrons, whatever the image's unit."""

    name: str
    variant: str
    seed: int
    kind: Kind
    image: np.ndarray
    """In the kind's unit: multiply by `electrons` for electrons."""
    mask: np.ndarray
    """int32, by the bits of LSST's planes."""
    sky: np.ndarray
    """What a perfect background subtracts: sky and offsets of the electronics."""
    sources: np.ndarray
    """Light of all sources without noise: detected, undetected, the large object, cirrus."""
    undetected: np.ndarray
    """Light of the sources with a matched-filter signal below 5 sigma, a part of `sources`."""
    target: np.ndarray | None
    """Light of the large object alone, or cirrus; None where there is neither. A part of `sources`."""
    facts: dict[str, float]
    """Place, radius and flux of the large object; numbers of sources."""

    @property
    def electrons(self) -> float:
        """Electrons per unit of the image."""
        return 1.0 if self.kind.unit == "electron" else self.kind.gain

    @property
    def sigma(self) -> float:
        """Noise of a pixel of sky, electron; what is left of it where noise was smoothed."""
        white = detector.noise_of(self.kind)
        if not self.kind.correlation:
            return white
        spot = np.zeros((31, 31))
        spot[15, 15] = 1
        kernel = ndimage.gaussian_filter(spot, self.kind.correlation, truncate=3)
        return white * float(np.sqrt(np.sum(kernel**2)))

    @property
    def defects(self) -> np.ndarray:
        """(ny, nx) bool: pixels that say nothing of the sky: those with any mask plane set."""
        return self.mask != 0

    @property
    def amplifiers(self) -> tuple[Amplifier, ...]:
        """Their pixels."""
        boxes = skies.amplifier_boxes(self.kind, (self.image.shape[0], self.image.shape[1]))
        return tuple(
            Amplifier(f"{k:02d}", y=(int(y.start), int(y.stop)), x=(int(x.start), int(x.stop)))
            for k, (y, x) in enumerate(boxes)
        )

    @property
    def visit_image(self) -> VisitImage:
        """As `skysub.calibrate_image` takes it."""
        variance = np.maximum(self.sky + self.sources, 0) + np.float32(self.kind.read_noise**2)
        variance *= np.float32((self.sigma / detector.noise_of(self.kind) / self.electrons) ** 2)
        return VisitImage(
            image=self.image,
            mask=self.mask,
            planes=AFW_PLANES,
            variance=variance,
            unit=self.kind.unit,
            visit=self.seed,
            detector=1,
            band="u" if self.kind.sky < 60 else "r",
            exposure_time=30.0,
            gain=self.kind.gain,
            read_noise=self.kind.read_noise,
            amplifiers=self.amplifiers,
        )


def make_scene(
    name: str,
    seed: int,
    shape: tuple[int, int] = (2048, 2048),
    *,
    variant: str = "A",
    cache: Path | str | None = None,
) -> Scene:
    """Make a scene, or read it from the folder ``cache`` where it was made before.

    Raises
    ------
    KeyError
        When there is no such kind or variant.
    """
    kind = kind_of(name, variant, seed)
    if cache is None:
        return _make(name, kind, variant, seed, shape)
    path = Path(cache) / f"{name}_{variant}{seed}_{shape[0]}x{shape[1]}_v{_VERSION}.npz"
    described = json.dumps(dataclasses.asdict(kind), sort_keys=True)
    if path.exists():
        with np.load(path) as held:
            if str(held["kind"]) == described:
                return _from_cache(name, kind, variant, seed, held)
    scene = _make(name, kind, variant, seed, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"image": scene.image, "mask": scene.mask.astype(np.uint16), "sky": scene.sky}
    arrays |= {"sources": scene.sources, "undetected": scene.undetected}
    if scene.target is not None:
        arrays["target"] = scene.target
    part = path.with_suffix(".part.npz")
    np.savez(part, kind=described, facts=json.dumps(scene.facts), **arrays)
    part.rename(path)
    return scene


def _from_cache(name: str, kind: Kind, variant: str, seed: int, held: np.lib.npyio.NpzFile) -> Scene:
    return Scene(
        name=name,
        variant=variant,
        seed=seed,
        kind=kind,
        image=held["image"],
        mask=held["mask"].astype(np.int32),
        sky=held["sky"],
        sources=held["sources"],
        undetected=held["undetected"],
        target=held["target"] if "target" in held.files else None,
        facts=json.loads(str(held["facts"])),
    )


def _make(name: str, kind: Kind, variant: str, seed: int, shape: tuple[int, int]) -> Scene:
    def rng(part: str) -> np.random.Generator:
        return stream(name, variant, seed, part)

    planes = sources.render(
        sources.draw_catalogue(kind, shape, rng("catalogue")), kind, shape, detector.noise_of(kind)
    )
    facts = {"detected": float(planes.count[0]), "undetected": float(planes.count[1])}
    light, target = planes.detected, None
    if kind.target:
        found = large.make_target(kind, shape, rng("target"))
        target = found.light
        facts |= {"x": found.x, "y": found.y, "radius": found.radius, "flux": found.flux}
        light += target
    if kind.aureole:
        light = large.with_aureole(light, kind.aureole, kind.fwhm)
    far = 0.0
    if kind.cirrus:
        near, far = large.cirrus(kind, shape, rng("target"))
        target = near.astype(np.float32)
        light += target
    light += planes.undetected
    lit = detector.lit_share(kind, shape, rng("vignetting"))
    light *= lit
    sky = (skies.light_of_sky(kind, shape, rng("sky")) + far) * lit
    offsets = skies.pedestals(kind, shape, rng("electronics"))
    image, mask = detector.observe(sky + light, offsets, lit, kind, rng("detector"))
    return Scene(
        name=name,
        variant=variant,
        seed=seed,
        kind=kind,
        image=image,
        mask=mask,
        sky=(sky + offsets).astype(np.float32),
        sources=light,
        undetected=planes.undetected * lit,
        target=target,
        facts=facts,
    )
