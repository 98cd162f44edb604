"""Bytes flipped and files deleted in a finished store: readers notice, one ``run --verify`` heals it all."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

import skysub
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign
from skysub.errors import DamagedError, NotDoneError, SkysubError

from .conftest import HERE, VOLATILE, write_visit

CHAIN = ("first", "second", "third")
IMAGES = ("preliminary_visit_image", "flat", "final")
BACKGROUND = "preliminary_visit_image_background"
KINDS = {
    "pixels": "runs/*/images.zarr/*/*/c.*",
    "background": "runs/*/backgrounds.zarr/*/*/c.*",
    "metadata": "runs/*/*.zarr/**/zarr.json",
    "coordinate": "runs/*/*.zarr/*/*/c/*",
    "table": "runs/*/tables/*/*.parquet",
    "marker": "runs/*/units/*/*.visit",
    "run.json": "runs/*/run.json",
    "units.jsonl": "runs/*/units.jsonl",
    "visits.json": "runs/*/visits.json",
    "plan.copy": "runs/*/plan.copy",
    "inputs": "inputs.sqlite",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A finished store of four steps, all that can be read of it, and how it is verified."""
    folder = tmp_path_factory.mktemp("fuzzed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        (folder / "raw").mkdir()
        for visit in (11, 12):
            for detector, shape in ((0, (96, 128)), (1, (70, 128))):
                write_visit(folder / f"raw/v{visit}_d{detector}.fits", visit, detector, shape=shape)
        (folder / "chain.yaml").write_text(
            "steps:\n  background: {fit: {superpixel: 32}}\n"
            + "".join(f"  'chain_steps:{name}': {{}}\n" for name in CHAIN)
        )
        with (
            LocalCluster(
                processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            ) as cluster,
            Client(cluster) as client,
        ):

            def run(output, *, verify=False):
                recipe = load_recipe(str(folder / "chain.yaml"), inputs=[f"{folder}/raw/*.fits"])
                return run_campaign(recipe, output, verify=verify, client=client)

            run(folder / "out")
            yield folder / "out", everything(folder / "out"), run


def everything(output):
    """Digest of each thing that can be read, or the error of ours that reading it raised."""
    campaign = ours(lambda: skysub.open_campaign(output))
    if isinstance(campaign, SkysubError):
        return {"open": campaign}
    read = {
        "status": ours(lambda: campaign.status().counts),
        "visits": ours(lambda: columns(campaign.visits)),
        "again": ours(lambda: skysub.open_campaign(output).status().counts),
    }
    for step in ("background", *(f"chain_steps:{name}" for name in CHAIN)):
        read["figures", step] = ours(lambda step=step: columns(campaign.figures(step)))
        for visit in (11, 12):
            for detector in (None,) if step.endswith("second") else (0, 1):
                read["marker", step, visit, detector] = ours(
                    lambda step=step, visit=visit, detector=detector: marker(campaign, visit, detector, step)
                )
    for name in ("stars", "source"):
        read["table", name] = ours(lambda name=name: columns(campaign.table(name)))
    for name in (*IMAGES, BACKGROUND, "sky", "offset", "level", "stars", "source", "shape"):
        for visit in (11, 12):
            for detector in (None,) if name == "sky" else (0, 1):
                read["product", name, visit, detector] = ours(
                    lambda name=name, visit=visit, detector=detector: digest(
                        campaign.product(name, visit, detector)
                    )
                )
    for name in (*IMAGES, BACKGROUND):
        read["dataset", name] = ours(lambda name=name: dataset(campaign, name))
    return read


def ours(look):
    """What a look gives; only errors of ours may come instead."""
    try:
        return look()
    except SkysubError as error:
        return error


def columns(table):
    return {
        name: [str(value) for value in np.asarray(table[name]).ravel().tolist()]
        for name in table.colnames
        if name != "seconds"
    }


def marker(campaign, visit, detector, step):
    values = {
        key: value for key, value in campaign.marker(visit, detector, step).items() if key not in VOLATILE
    }
    return json.dumps(values, sort_keys=True)


def dataset(campaign, name):
    opened = campaign.open_dataset(name)
    # as users take it: one detector's window first
    one = opened.isel(visit=1, detector=0)
    parts = [one[each].to_numpy() for each in sorted(one.data_vars)]
    parts += [opened[each].to_numpy() for each in sorted([*opened.data_vars, *opened.coords])]
    attributes = [sorted(opened[each].attrs.items()) for each in sorted(opened.data_vars)]
    return [digest(part) for part in parts], str(attributes)


def digest(value):
    sha = hashlib.sha256()

    def add(each):
        if isinstance(each, skysub.VisitImage):
            for name in ("image", "mask", "variance", "unit", "planes", "exposure_time", "xy0"):
                add(getattr(each, name))
            add(each.wcs.to_header_string(relax=True))
        elif isinstance(each, np.ndarray):
            sha.update(f"{each.dtype} {each.shape}".encode())
            sha.update(repr(each.tolist()).encode() if each.dtype.kind in "OU" else each.tobytes())
        elif hasattr(each, "colnames"):
            sha.update(repr(columns(each)).encode())
        elif isinstance(each, skysub.BackgroundList):
            for layer in each:
                for name in ("mean", "error", "count"):
                    add(getattr(layer.statistics, name))
                for array in (layer.coefficients, layer.covariance, layer.usable):
                    add(array)
        elif hasattr(each, "__dataclass_fields__"):
            for name in each.__dataclass_fields__:
                add(getattr(each, name))
        else:
            sha.update(repr(each).encode())

    add(value)
    return sha.hexdigest()


def files_of(output, kind):
    return sorted(path for path in Path(output).glob(KINDS[kind]) if path.is_file() and path.stat().st_size)


def damage(path, how, rng):
    data = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
        return
    place = int(rng.integers(len(data)))
    if how == "empty":
        data = bytearray()
    elif how == "cut":
        del data[place:]
    else:
        data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def check_reads(before, after, *, lost_marker):
    """Each thing is as it was, or an error of ours; what lost its marker is not done, and said to be."""
    if set(after) == {"open"}:
        assert isinstance(after["open"], DamagedError)
        return
    for what, value in after.items():
        if isinstance(value, SkysubError):
            assert isinstance(value, (DamagedError, NotDoneError)), (what, value)
            assert "--verify" in str(value) or "not done" in str(value) or "is left" in str(value), (
                what,
                value,
            )
        elif not lost_marker:
            assert value == before[what], what
    if lost_marker:
        assert after["status"]["left"] > 0


def fuzz(store, folder, kinds, seed, *, how):
    """Damage one file of a copy, read everything, verify, read again."""
    output, before, run = store
    rng = np.random.default_rng(seed)
    kind = kinds[seed % len(kinds)]
    copy = folder / f"{seed}"
    shutil.copytree(output, copy)
    found = files_of(copy, kind)
    path = found[int(rng.integers(len(found)))]
    damage(path, how, rng)
    label = (seed, how, str(path.relative_to(copy)))
    try:
        after = everything(copy)
        check_reads(before, after, lost_marker=kind == "marker" and how in {"delete", "empty"})
        run(copy, verify=True)
        healed = everything(copy)
        wrong = {what: value for what, value in healed.items() if value != before[what]}
        assert not wrong
        assert not list(copy.rglob("*.partial"))
        assert sorted(path.name for path in copy.rglob("*") if not path.name.endswith("-journal")) == sorted(
            path.name for path in Path(output).rglob("*")
        )
    except Exception as error:
        raise AssertionError(f"{label}: {type(error).__name__}: {error}") from error
    shutil.rmtree(copy)
    return any(isinstance(value, SkysubError) for value in after.values())


@pytest.mark.parametrize("seed", range(len(KINDS)))
def test_one_flip_in_each_kind_of_file(store, tmp_path, seed):
    noticed = fuzz(store, tmp_path, list(KINDS), seed, how="flip")
    # readers do not look at the second copy and at the cache
    assert noticed or list(KINDS)[seed] in {"plan.copy", "inputs"}


def test_many_damages_at_once_are_healed_by_one_verify(store, tmp_path):
    output, before, run = store
    copy = tmp_path / "copy"
    shutil.copytree(output, copy)
    rng = np.random.default_rng(5)
    shutil.rmtree(copy / "runs/0001/images.zarr/flat")
    shutil.rmtree(copy / "runs/0001/backgrounds.zarr")
    for number, kind in enumerate(
        ("pixels", "metadata", "table", "marker", "run.json", "units.jsonl", "visits.json")
    ):
        damage(files_of(copy, kind)[-1], ("delete", "empty", "cut", "flip")[number % 4], rng)
    assert isinstance(everything(copy)["open"], DamagedError)
    with pytest.raises(DamagedError, match=r"is (damaged|gone|empty).*--verify"):
        run(copy)
    run(copy, verify=True)
    assert everything(copy) == before


@pytest.mark.long
@pytest.mark.parametrize("batch", range(20))
def test_five_hundred_flips_and_a_hundred_deletions(store, tmp_path, batch):
    for number in range(30):
        how = "flip" if number < 25 else ("delete", "empty", "cut", "delete")[number % 4]
        fuzz(store, tmp_path, list(KINDS), 30 * batch + number, how=how)
