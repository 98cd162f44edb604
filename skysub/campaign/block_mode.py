"""A detector cut into blocks over the cluster: for few detectors on many cores, with the same bits.

Every worker that takes part reads the file once. Statistics are measured block by block, each block a
union of whole superpixels; their grid is gathered and fit; the model is subtracted where pixels are
written, one task for each plane.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from skysub.background.superpixels import candidate_grids
from skysub.campaign.context import chain_of, run_at, storing_of, working_chain_of
from skysub.campaign.inputs import content_checksum, stamp
from skysub.campaign.products.image import Image
from skysub.campaign.reading import read_file
from skysub.campaign.records import WorkUnit
from skysub.campaign.store.records import described, narrow_mask, pixels_checksum
from skysub.campaign.unit import Receipt, commit, guarded, now, process_units, slot_in
from skysub.errors import InputChangedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from skysub.background.config import BackgroundConfig
    from skysub.background.model import Background
    from skysub.campaign.store.runs import Run
    from skysub.visit.image import VisitImage

__all__ = ["process_units_in_blocks"]


def process_units_in_blocks(
    folder: str, lines: Sequence[str], blocks: int, workers: Sequence[str] | None
) -> list[Receipt]:
    """Do units one after the other, each by about ``blocks`` tasks at once that this one leads.

    ``workers``: addresses of those that may be given such tasks; None: all.
    """

    def work(run: Run, unit: WorkUnit) -> dict[str, float]:
        return _process(run, unit, unit.to_json(), blocks, workers)

    receipts: list[Receipt] = []
    for line in lines:
        closing = WorkUnit.from_json(line).closing
        receipts += process_units(folder, [line]) if closing else [guarded(folder, line, work)]
    return receipts


def _process(
    run: Run, unit: WorkUnit, line: str, blocks: int, workers: Sequence[str] | None
) -> dict[str, float]:
    import dask.array as da
    from distributed import worker_client

    from skysub.background.blocks import fit_blocks

    link = working_chain_of(run)[unit.step]
    assert link.step.single_fit is not None
    fit_config, ignored = link.step.single_fit.settings(link.config)
    folder, path = str(run.folder), unit.exposures[0].path
    started, clock = now(), time.perf_counter()
    stamped = stamp(path)
    shape = unit.exposures[0].shape
    rows = _aligned_rows(shape, fit_config, blocks)
    # new names each time: a task of an earlier attempt may still be around
    attempt = uuid.uuid4().hex
    shared = {
        "dtype": np.float32,
        "chunks": (rows, shape[1:]),
        "folder": folder,
        "line": line,
        "attempt": attempt,
    }
    image = da.map_blocks(_image_rows, name=f"image-rows-{attempt}", **shared)
    flags = da.map_blocks(
        _flag_rows, name=f"flag-rows-{attempt}", ignored=ignored, **(shared | {"dtype": np.bool_})
    )
    with worker_client() as client:
        fit = client.compute(fit_blocks(image, flags, fit_config), workers=workers)
        layer: Background = fit.result()
        timings = {"background": time.perf_counter() - clock}
        clock = time.perf_counter()
        names = ["mask", "image", "variance"]
        if storing_of(run).pixels != "stored":
            names.remove("variance")
        tasks = [
            client.submit(
                _write_plane,
                folder,
                line,
                name,
                fit,
                attempt,
                key=f"write-{name}-{attempt}",
                pure=False,
                workers=workers,
            )
            for name in names
        ]
        written = dict(zip(names, client.gather(tasks), strict=True))
    timings["write"] = time.perf_counter() - clock
    clock = time.perf_counter()
    crc = content_checksum(path)
    if stamp(path) != stamped:
        raise InputChangedError(f"{path} changed while it was read: start the same command again")
    timings["checksum"] = time.perf_counter() - clock
    found = link.step.single_fit.findings(layer)
    shards = {name: parts["shard"] for name, parts in written.items() if parts.get("shard")}
    pixels = _pixels_of(run, unit)
    record, kept = pixels.written(
        written["mask"]["image"], shards, written["image"].get("pixels_crc32c"), written["image"]["preview"]
    )
    products, payload = {pixels.name: record}, {pixels.name: kept}
    made = dict(found.products)
    for product in link.step.outputs:
        if product.name in made:
            products[product.name], payload[product.name] = product.write(
                slot_in(run, unit, unit.detector), made, storing_of(run)
            )
    commit(
        run,
        unit,
        found.findings(),
        products=products,
        payload=payload,
        crc32c=crc,
        timings=timings,
        started=started,
    )
    return timings


def _pixels_of(run: Run, unit: WorkUnit) -> Image:
    """The image that the step makes."""
    return next(each for each in chain_of(run)[unit.step].step.outputs if isinstance(each, Image))


def _aligned_rows(shape: tuple[int, int], config: BackgroundConfig, blocks: int) -> tuple[int, ...]:
    """Rows of each block: whole superpixels, shared out evenly."""
    edges = candidate_grids(shape, config)[0].y_edges
    cuts = np.unique(np.linspace(0, len(edges) - 1, blocks + 1).round().astype(int))
    return tuple(np.diff(edges[cuts]).tolist())


_HELD: dict[str, VisitImage] = {}
"""The detector that this worker has a part in, by the attempt of the attempt; never more than one."""


def _held(folder: str, line: str, attempt: str) -> VisitImage:
    visit_image = _HELD.get(attempt)
    if visit_image is None:
        _HELD.clear()
        unit = WorkUnit.from_json(line)
        visit_image = _HELD[attempt] = read_file(run_at(folder), unit.exposures[0])
    return visit_image


def _image_rows(folder: str, line: str, attempt: str, block_info: Any = None) -> NDArray[np.float32]:
    return _held(folder, line, attempt).image[_rows(block_info)]


def _flag_rows(
    folder: str, line: str, attempt: str, ignored: tuple[str, ...], block_info: Any = None
) -> NDArray[np.bool_]:
    visit_image = _held(folder, line, attempt)
    bits = visit_image.mask.dtype.type(visit_image.bits(*ignored))
    flags: NDArray[np.bool_] = (visit_image.mask[_rows(block_info)] & bits) != 0
    return flags


def _rows(block_info: Any) -> slice:
    start, stop = block_info[None]["array-location"][0]
    return slice(start, stop)


def _write_plane(folder: str, line: str, name: str, layer: Background, attempt: str) -> dict[str, Any]:
    run, unit = run_at(folder), WorkUnit.from_json(line)
    visit_image = _held(folder, line, attempt)
    storing, slot, product = storing_of(run), slot_in(run, unit, unit.detector), _pixels_of(run, unit)
    if name == "mask":
        mask, planes = narrow_mask(visit_image.mask, visit_image.planes)
        shard = product.write_plane(slot, name, mask, storing)
        return {"shard": shard, "image": described(visit_image, planes)}
    if name == "variance":
        pixels = visit_image.variance
        return {} if pixels is None else {"shard": product.write_plane(slot, name, pixels, storing)}
    subtracted = visit_image.replace(image=layer.subtract_from(visit_image.image))
    made = {"preview": product.previewed(subtracted)}
    if storing.pixels != "stored":
        return made | {"pixels_crc32c": pixels_checksum(subtracted.image)}
    return made | {"shard": product.write_plane(slot, name, subtracted.image, storing)}
