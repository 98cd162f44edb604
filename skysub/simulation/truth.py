"""What is known about a simulated detector, in memory and in files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.errors import TruthError
from skysub.simulation.observation import Observation
from skysub.simulation.scene import Scene
from skysub.simulation.sky import FAINTEST_FLAT, SKY_PLANES, light_kept

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SOURCE_PLANES", "Truth", "read_truth", "read_truths", "write_truth"]

SOURCE_PLANES = ("sources", "faint_sources", "aureoles", "cosmic_rays")
"""Light that is not sky: detected sources, those below the limit, aureoles of stars, cosmic rays."""

FORMAT = "skysub-truth-1"


@dataclass(frozen=True, eq=False)
class Truth:
    """Every component of one simulated detector, as its own plane.

    Planes are float32 multiples of 1/1024 electron, so that their sum has the same bits in any order
    (up to 16384 electrons; above, float32 itself is coarser).
    """

    scene: Scene
    seed: int
    observation: Observation
    planes: Mapping[str, NDArray[np.float32]]
    """(ny, nx) float32 each, electron per pixel; keys are SKY_PLANES and SOURCE_PLANES. Read from a
    file, a plane is loaded when it is asked for, and not kept."""
    catalog: NDArray[np.void]
    """(n,) sources on and near the detector, of `skysub.simulation.sources.CATALOG_TYPE`."""
    unusable: NDArray[np.bool_]
    """(ny, nx) bool: saturated pixels and bleeds, bad columns, pixels without light."""
    image_path: str = ""
    """The image that this is the truth of, relative to the truth's own folder."""

    @property
    def visit(self) -> int:
        """Number of the visit."""
        return self.observation.visit

    @property
    def detector(self) -> int:
        """Number of the detector."""
        return self.observation.detector

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx), pixel."""
        return self.observation.shape

    @property
    def sky(self) -> NDArray[np.float32]:
        """(ny, nx) float32, electron per pixel: the sum of the sky's components."""
        return self.total(*SKY_PLANES)

    @functools.cached_property
    def sigma(self) -> float:
        """Noise of an empty pixel, electron: median over the detector."""
        median = float(np.median(self.sky[::8, ::8]))
        return float(np.sqrt(median + self.observation.read_noise**2))

    @property
    def variance(self) -> NDArray[np.float32]:
        """(ny, nx) float32, electron squared: of each pixel's noise, from its true light."""
        variance = self.total(*SKY_PLANES, "sources", "faint_sources", "aureoles")
        kept = light_kept(self.scene, self.observation)
        read = np.float32(self.observation.read_noise**2)
        if kept is None:
            return variance + read
        kept = np.maximum(kept, np.float32(FAINTEST_FLAT))
        return variance / kept + read / kept**2

    @property
    def lightless(self) -> NDArray[np.bool_] | None:
        """(ny, nx) bool: pixels so vignetted that they are NO_DATA; None where there is none."""
        kept = light_kept(self.scene, self.observation)
        if kept is None:
            return None
        dark = kept < self.scene.vignetting.masked_below
        return dark if dark.any() else None

    def total(self, *names: str) -> NDArray[np.float32]:
        """Sum of some planes, (ny, nx) float32."""
        out = np.zeros(self.shape, np.float32)
        for name in names:
            plane = self.planes[name]
            if any(plane.strides) or plane.flat[0] != 0:
                out += plane
        return out


class _StoredPlanes(Mapping[str, "NDArray[np.float32]"]):
    """Planes of a Zarr group, read when asked for; each holds its path, not an open file."""

    def __init__(self, path: str, names: tuple[str, ...]) -> None:
        self._path = path
        self._names = names

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        import zarr

        if name not in self._names:
            raise KeyError(name)
        array: Any = zarr.open_group(self._path, mode="r")[name]
        if "constant" in array.attrs:
            return np.broadcast_to(np.float32(array.attrs["constant"]), array.shape)
        return np.asarray(array[:])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_truth(truth: Truth, path: str | Path, *, image_path: str = "") -> None:
    """Write a truth as a Zarr v3 group, replacing what is there.

    One array per plane, ``unusable``, and one array per column of the catalogue under ``catalog``;
    the scene, the seed and the observation stand in the group's attributes. Blosc packs the smooth
    planes some twenty times, because they are multiples of 1/1024.

    Parameters
    ----------
    image_path
        Where the image lies, relative to the folder of ``path``.
    """
    import zarr
    from zarr.codecs import BloscCodec

    packed = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    group.attrs.update({
        "format": FORMAT,
        "scene": asdict(truth.scene),
        "seed": truth.seed,
        "observation": asdict(truth.observation),
        "image_path": image_path or truth.image_path,
        "sky_planes": list(SKY_PLANES),
        "source_planes": list(SOURCE_PLANES),
        "unit": "electron",
    })  # fmt: skip
    chunks = tuple(min(1024, n) for n in truth.shape)
    for name, plane in {**truth.planes, "unusable": truth.unusable}.items():
        array = group.create_array(
            name, shape=plane.shape, dtype=plane.dtype, chunks=chunks, compressors=packed, fill_value=0
        )
        if any(plane.strides):
            array[:] = plane
        else:
            array.attrs["constant"] = float(plane.flat[0])
    columns = group.create_group("catalog")
    for name in truth.catalog.dtype.names or ():
        column = np.ascontiguousarray(truth.catalog[name])
        if column.dtype.kind == "U":
            column = column.astype("S12").view(np.uint8).reshape(len(column), 12)
        array = columns.create_array(
            name,
            shape=column.shape,
            dtype=column.dtype,
            chunks=tuple(max(n, 1) for n in column.shape),
            compressors=packed,
        )
        if len(column):
            array[:] = column


def read_truth(path: str | Path) -> Truth:
    """Truth of one detector, from the folder that `write_truth` made; planes are read when asked for.

    Raises
    ------
    TruthError
        When it is not there, or not such a folder.
    """
    from skysub.simulation.sources import CATALOG_TYPE

    group, attributes = _open(path)
    try:
        columns = group["catalog"]
        rows = np.zeros(columns["id"].shape[0], CATALOG_TYPE)
        for name in CATALOG_TYPE.names or ():
            column = np.asarray(columns[name][:])
            rows[name] = column.view("S12")[:, 0].astype("U12") if name == "type" else column
        return Truth(
            scene=Scene.from_dict(attributes["scene"]),
            seed=int(attributes["seed"]),
            observation=_observation(attributes),
            planes=_StoredPlanes(str(path), SKY_PLANES + SOURCE_PLANES),
            catalog=rows,
            unusable=np.asarray(group["unusable"][:]),
            image_path=str(attributes["image_path"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TruthError(f"{path}: is damaged ({error!r}); simulate it again") from error


def read_truths(folder: str | Path) -> Mapping[tuple[int, int], Truth]:
    """All truths of a folder by (visit, detector), each read when it is asked for.

    ``folder`` may be the simulation's or its ``truth``.

    Raises
    ------
    TruthError
        When there is none, or one cannot be read.
    """
    root = Path(folder)
    if (root / "truth").is_dir():
        root /= "truth"
    found = sorted(root.glob("*.zarr"))
    if not found:
        raise TruthError(f"{folder}: holds no truth (*.zarr); give the folder that 'skysub simulate' wrote")
    paths = {}
    for path in found:
        seen = _observation(_open(path)[1])
        paths[seen.visit, seen.detector] = path
    return _StoredTruths(paths)


class _StoredTruths(Mapping[tuple[int, int], Truth]):
    """Truths by (visit, detector); the last one that was read is kept."""

    def __init__(self, paths: Mapping[tuple[int, int], Path]) -> None:
        self._paths = dict(sorted(paths.items()))
        self._last: tuple[tuple[int, int], Truth] | None = None

    def __getitem__(self, key: tuple[int, int]) -> Truth:
        if self._last is None or self._last[0] != key:
            self._last = (key, read_truth(self._paths[key]))
        return self._last[1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _open(path: str | Path) -> tuple[Any, dict[str, Any]]:
    import zarr
    from zarr.errors import GroupNotFoundError

    try:
        group = zarr.open_group(str(path), mode="r")
    except (FileNotFoundError, GroupNotFoundError):
        raise TruthError(
            f"{path}: there is no truth here; 'skysub simulate' writes one per detector"
        ) from None
    attributes = dict(group.attrs)
    if attributes.get("format") != FORMAT:
        raise TruthError(
            f"{path}: its format is {attributes.get('format')!r}, not {FORMAT!r}; simulate it again"
        )
    return group, attributes


def _observation(attributes: Mapping[str, Any]) -> Observation:
    try:
        saved = {item.name: attributes["observation"][item.name] for item in fields(Observation)}
        return Observation(**(saved | {"shape": tuple(saved["shape"])}))
    except (KeyError, TypeError) as error:
        raise TruthError(f"a truth's observation is damaged ({error!r}); simulate it again") from error
