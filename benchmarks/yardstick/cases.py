"""What is measured: an image without its sky, its PSF, and every source that is in it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

import skysub
from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene
from skysub.visit.planes import AFW_PLANES

__all__ = ["Case", "MoffatBeta3", "foreign_case", "kept", "own_case"]

_UNSEEN = 64
"""Sigma of the Gaussian that smooths the light of undetected sources, pixel: photometry wants it gone."""


class MoffatBeta3:
    """The simulator's own PSF, of sum 1 over its stamp."""

    def __init__(self, scale: float, size: int = 41) -> None:
        self.scale, self.size = scale, size

    def stamps(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        i = np.arange(self.size) - self.size // 2
        dy, dx = (i[None, :] - (v - np.round(v))[:, None] for v in (y, x))
        p = (1 + (dy[:, :, None] ** 2 + dx[:, None, :] ** 2) / self.scale**2) ** -3
        return p / p.sum((1, 2), keepdims=True)

    @property
    def share(self) -> float:
        """Part of a star's light that the stamp holds."""
        i = np.arange(self.size) - self.size // 2
        p = (1 + (i[:, None] ** 2 + i**2) / self.scale**2) ** -3
        return float(p.sum() * 2 / (np.pi * self.scale**2))


class DrawnPsf:
    """The PSF of a foreign kind as GalSim draws it, of sum 1 over its stamp."""

    def __init__(self, kind: object, size: int = 41) -> None:
        self.kind, self.size = kind, size

    def stamps(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        from foreign.sources import make_psf

        profile, n = make_psf(self.kind), self.size
        offsets = np.column_stack([x - np.round(x), y - np.round(y)])
        drawn, inverse = np.unique(np.round(offsets, 6), axis=0, return_inverse=True)
        stamps = np.array([profile.drawImage(nx=n, ny=n, scale=1.0, offset=tuple(o)).array for o in drawn])
        stamps /= stamps.sum((1, 2), keepdims=True)
        return stamps[inverse.ravel()].astype(np.float64)


@dataclass(frozen=True)
class Case:
    name: str
    image: np.ndarray
    variance: np.ndarray
    mask: np.ndarray
    """What the instrument flagged, and cosmic rays."""
    psf: object
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    is_star: np.ndarray
    signal: np.ndarray
    """Flux over the noise under the source's own light."""
    share: float
    """Part of a star's light that the PSF's stamp holds; NaN where it is not known."""


def kept(cache: str, name: str, make: object) -> Case:
    """A case from the folder ``cache``, or made and put there; without a folder, made."""
    if not cache:
        return make()
    path = Path(cache) / f"{name.replace(' ', '_')}.pickle"
    if path.exists():
        return pickle.loads(path.read_bytes())
    case = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(case, protocol=5))
    return case


def own_case(name: str, seed: int, shape: tuple[int, int], sky: str) -> Case:
    """A scene of `skysub.simulation`, less the true sky and with the true PSF, or with ``own`` ones."""
    scene = named_scene(name)
    visit_image, truth = simulate_detector(scene, 1, 1, seed=seed, shape=shape)
    planes = {k: np.asarray(v, np.float32) for k, v in truth.planes.items()}
    mask = visit_image.mask.copy()
    mask[planes["cosmic_rays"] > 0] |= AFW_PLANES.bits("CR")
    seen, catalog = truth.observation, truth.catalog
    psf: object = MoffatBeta3(seen.psf_scale)
    share = MoffatBeta3(seen.psf_scale).share * (1 - scene.stars.aureole)
    if sky == "true":
        left_out = {"sources", "faint_sources", "cosmic_rays"}
        image = visit_image.image - sum(v for k, v in planes.items() if k not in left_out)
        image -= gaussian_filter(planes["faint_sources"], _UNSEEN)
    else:
        result = skysub.calibrate_image(visit_image)
        image, psf, share = result.preliminary_visit_image.image, result.psf, float("nan")
    area = seen.psf_area + 4 * np.pi * catalog["radius"] ** 2
    return Case(
        name=f"{name} seed {seed} {sky}",
        image=np.ascontiguousarray(image, np.float32),
        variance=visit_image.variance,
        mask=mask,
        psf=psf,
        x=catalog["x"],
        y=catalog["y"],
        flux=catalog["flux"],
        is_star=catalog["radius"] == 0,
        signal=catalog["flux"] / np.sqrt(area * seen.pixel_variance),
        share=share,
    )


def foreign_case(name: str, seed: int, shape: tuple[int, int], sky: str) -> Case:
    """A scene that GalSim drew, in the same two ways."""
    from foreign import scenes, sources
    from foreign.kinds import stream

    scene = scenes.make_scene(name, seed, shape)
    kind, electrons = scene.kind, scene.electrons
    catalog = sources.draw_catalogue(kind, shape, stream(name, "A", seed, "catalogue"))
    visit_image = scene.visit_image
    mask = visit_image.mask.astype(np.int32)
    psf: object = DrawnPsf(kind)
    if sky == "true":
        image = (visit_image.image * electrons - scene.sky) - gaussian_filter(scene.undetected, _UNSEEN)
        image /= electrons
    else:
        result = skysub.calibrate_image(visit_image)
        image, psf = result.preliminary_visit_image.image, result.psf
        found = result.preliminary_visit_image.mask & AFW_PLANES.bits("CR")
        mask |= found.astype(np.int32)
    stamp = DrawnPsf(kind).stamps(np.zeros(1), np.zeros(1))[0]
    area = 1 / np.sum(stamp**2) + 4 * np.pi * catalog.radius**2
    return Case(
        name=f"{name} (foreign) seed {seed} {sky}",
        image=np.ascontiguousarray(image, np.float32),
        variance=visit_image.variance,
        mask=mask,
        psf=psf,
        x=catalog.x,
        y=catalog.y,
        flux=catalog.flux / electrons,
        is_star=catalog.radius == 0,
        signal=catalog.flux / (scene.sigma * np.sqrt(area)),
        share=float("nan"),
    )
