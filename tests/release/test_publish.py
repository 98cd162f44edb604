"""Releases: what plain readers find in them, kills, and what is refused."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from astropy.io.fits import Header
from astropy.table import QTable
from astropy.units import Unit
from astropy.wcs import WCS

import skysub
from skysub.campaign.store.backgrounds import from_arrays
from skysub.cli import main
from skysub.release.publish import publish
from skysub.testing import make_visit_image

SHAPE = (300, 340)
VISITS = (2024112400123, 12)
IMAGE, BACKGROUND = "preliminary_visit_image", "preliminary_visit_image_background"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """Output of a whole chain on two visits of two detectors, one of which is broken."""
    folder = tmp_path_factory.mktemp("campaign")
    raw = folder / "raw"
    raw.mkdir()
    for visit in VISITS:
        for detector in (0, 3):
            image = make_visit_image(SHAPE, visit=visit, detector=detector, sources=40, detected=False)
            if (visit, detector) == (12, 3):
                image.image[:] = np.nan
            skysub.write_visit_image(image, raw / f"{visit}_{detector}.fits", compression="none")
    settings = ("cluster.profile=threads", "steps.calibrate_image.fwhm=4")
    outcome = skysub.run_campaign(
        "data_release", folder / "out", inputs=[f"{raw}/*.fits"], settings=list(settings)
    )
    assert outcome.failed
    return folder / "out"


@pytest.fixture(scope="module")
def release(campaign, tmp_path_factory):
    """A release of that."""
    folder = tmp_path_factory.mktemp("releases") / "dr1"
    published = publish(campaign, folder)
    assert (published.name, published.state, published.later) == ("dr1", "published", False)
    return folder


def opened(release, group):
    return xr.open_zarr(f"{release}/release.zarr", group=group)


def test_images_open_without_markers(campaign, release):
    there = skysub.open_campaign(campaign)
    for product in (IMAGE, "visit_image"):
        found = opened(release, product)
        assert found.visit.to_numpy().tolist() == sorted(VISITS)
        assert found.detector.to_numpy().tolist() == [0, 3]
        assert found.done.to_numpy().tolist() == [[True, False], [True, True]]
        for visit, detector in ((12, 0), (VISITS[0], 0), (VISITS[0], 3)):
            own = there.visit_image(visit, detector, product)
            one = found.sel(visit=visit, detector=detector)
            assert (int(one.ny), int(one.nx)) == own.shape
            assert one.image.to_numpy().tobytes() == own.image.tobytes()
            assert one.variance.to_numpy().tobytes() == own.variance.tobytes()
            assert one.mask.to_numpy().tobytes() == own.mask.tobytes()
            assert found.image.attrs["units"] == own.unit
            planes = dict(
                zip(found.mask.attrs["flag_meanings"].split(), found.mask.attrs["flag_masks"], strict=True)
            )
            assert planes == {plane: 1 << bit for plane, bit in own.planes.items()}
            assert float(one.photo_calib) == pytest.approx(own.photo_calib, rel=1e-15)
            wcs = WCS(Header.fromstring(str(one.wcs.to_numpy())))
            sky, same = wcs.pixel_to_world_values(40, 7), own.wcs.pixel_to_world_values(40, 7)
            np.testing.assert_allclose(sky, same, rtol=0, atol=1e-9)
        assert np.isnan(found.image.sel(visit=12, detector=3)).all()
        assert str(found.band.sel(visit=12).to_numpy()) == there.exposure(12, 0).band
        assert set(found.data_vars) == {"image", "mask", "variance"}
    tree = xr.open_datatree(f"{release}/release.zarr", engine="zarr")
    assert "visit_image" in tree.children
    assert tree.attrs["name"] == "dr1"


def test_backgrounds_can_be_evaluated(campaign, release):
    there = skysub.open_campaign(campaign)
    found = opened(release, BACKGROUND).sel(visit=VISITS[0], detector=3)
    own = there.background(BACKGROUND, VISITS[0], 3)
    layers = json.loads(str(found.description.to_numpy()))
    assert len(own) == len(layers) == int(found.layers)
    names = ("mean", "error", "count", "usable", "coefficients", "covariance")
    values = np.zeros(SHAPE)
    y, x = ((2 * np.arange(length) + 1) / length - 1 for length in SHAPE)
    for number, layer in enumerate(layers):
        again = from_arrays(layer, {name: found[name].to_numpy()[number] for name in names})
        assert again.evaluate().tobytes() == own[number].evaluate().tobytes()
        # as the attributes tell it
        terms = [(total - q, q) for total in range(layer["order"] + 1) for q in range(total + 1)]
        for (p, q), c in zip(terms, found.coefficients.to_numpy()[number], strict=False):
            values += c * np.cos(q * np.arccos(y))[:, None] * np.cos(p * np.arccos(x))[None, :]
    np.testing.assert_allclose(values, own.evaluate(), rtol=1e-5)


def test_small_arrays_and_objects(campaign, release):
    there = skysub.open_campaign(campaign)
    noise = opened(release, "noise")
    own = there.map("noise", VISITS[0], 3)
    inner = tuple(slice(length) for length in own.shape)
    assert (noise.noise.sel(visit=VISITS[0], detector=3).to_numpy()[inner] == own).all()
    rows = pd.read_parquet(f"{release}/tables/psf")
    assert sorted(zip(rows["visit"], rows["detector"], strict=True)) == [
        (12, 0),
        (VISITS[0], 0),
        (VISITS[0], 3),
    ]
    value = json.loads(rows["value"].iloc[0])
    assert value["class"] == type(there.psf(int(rows["visit"].iloc[0]), 0)).__name__
    whole = pd.read_parquet(f"{release}/tables/visit_sky/visit={VISITS[0]}.parquet")
    assert list(whole.columns) == ["visit", "value"]


def test_tables_open_in_any_tool(campaign, release):
    own = skysub.open_campaign(campaign).sources()
    rows = pl.read_parquet(f"{release}/tables/source/**/*.parquet", hive_partitioning=False)
    assert len(rows) == len(own) > 10
    rows = rows.sort("visit", "detector", maintain_order=True)
    assert rows["psfFlux"].to_numpy().tobytes() == own["psfFlux"].value.tobytes()
    one = QTable.read(f"{release}/tables/source/day_obs=20241124/visit={VISITS[0]}.parquet")
    same = skysub.open_campaign(campaign).sources(VISITS[0])
    assert one["psfFlux"].unit == Unit("nJy")
    assert one["psfFlux"].value.tobytes() == same["psfFlux"].value.tobytes()
    assert one["psfFlux"].info.description == same["psfFlux"].info.description != ""
    figures = pd.read_parquet(f"{release}/figures/calibrate_image.parquet")
    want = skysub.open_campaign(campaign).figures("calibrate_image")
    assert figures["sky"].tolist() == list(want["sky"])


def test_every_product_says_where_it_came_from(campaign, release):
    there = skysub.open_campaign(campaign)
    rows = pd.read_parquet(f"{release}/provenance/products.parquet")
    one = rows[(rows["product"] == "visit_image") & (rows["visit"] == 12)].iloc[0]
    marker = there.marker(12, 0, "reprocess_visit_image")
    assert (one["run"], one["key"], one["detector"]) == ("0001", marker["key"], 0)
    assert one["input_crc32c"] == marker["input"]["crc32c"]
    assert one["input_path"].endswith("raw/12_0.fits")
    assert json.loads(one["versions"]) == marker["versions"]
    assert [Path(release, name).is_file() for name in one["files"]] == [True] * 3
    assert set(rows["product"]) == set(there.products)
    settings = json.loads((release / "provenance/runs/0001.json").read_text())
    step = next(each for each in settings["steps"] if each["name"] == "reprocess_visit_image")
    assert step["settings_hash"] == one["settings_hash"]
    sky = rows[(rows["product"] == "visit_image_background") & (rows["visit"] == 12)].iloc[0]
    assert list(sky["missing"]) == [3]
    absent = pd.read_parquet(f"{release}/provenance/absent.parquet")
    first = absent[absent["step"] == "calibrate_image"].iloc[0]
    assert (first["visit"], first["detector"], first["state"]) == (12, 3, "failed")
    assert first["reason"]
    assert (absent["state"] != "left").all()


def test_checksums_are_those_of_sha256sum(release):
    checked = subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"],
        cwd=release,
        check=False,
        capture_output=True,
    )
    assert (checked.returncode, checked.stdout) == (0, b"")
    assert main(["publish", "--verify", str(release)]) == 0
