"""What is said where a package that only some work needs is not installed."""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from fsspec.registry import _registry

import skysub
from skysub.campaign.store import s3_client
from skysub.errors import MissingPackageError, OutputError, ReferenceCatalogueError
from skysub.errors import how_to_install as how

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.fixture
def without(monkeypatch):
    def remove(package):
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    s3_client.client.cache_clear()
    yield remove
    s3_client.client.cache_clear()


def says(extra):
    return rf"install skysub with the extra {extra}: pip install '\.\[{extra}\]' in its folder"


def test_campaigns_in_buckets(without):
    without("botocore")
    with pytest.raises(OutputError, match=says("s3")):
        skysub.open_campaign("s3://bucket/night")


def test_images_in_buckets(without, monkeypatch):
    without("s3fs")
    # fsspec remembers what it has imported before
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(skysub.errors.VisitFileError, match=says("s3")):
        skysub.read_visit_image("s3://bucket/image.fits")


def test_datasets(without):
    from skysub.campaign.dataset import open_dataset

    without("xarray")
    with pytest.raises(MissingPackageError, match=says("xarray")):
        open_dataset(None, "preliminary_visit_image")


def test_releases(without, tmp_path):
    without("pyarrow")
    with pytest.raises(MissingPackageError, match=says("parquet")):
        skysub.publish(tmp_path, tmp_path / "release")


def test_snapshots_of_releases(without, tmp_path):
    from skysub.campaign.store.local import LocalPath
    from skysub.release.snapshot import write_snapshot

    without("icechunk")
    with pytest.raises(MissingPackageError, match=says("icechunk")):
        write_snapshot(LocalPath(tmp_path), str(tmp_path / "ice"))


def test_reference_catalogues(without, tmp_path):
    without("pyarrow")
    with pytest.raises(ReferenceCatalogueError, match=says("parquet")):
        skysub.read_reference(tmp_path / "gaia.parquet", band="r")


def test_pictures(without, tmp_path):
    from skysub.simulation.pictures import draw_scene

    without("matplotlib")
    with pytest.raises(skysub.errors.ConfigError, match=says("pictures")):
        draw_scene(np.zeros((4, 4)), None, np.zeros((4, 4)), tmp_path / "picture.png")


def test_the_extras_that_are_named_exist():
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    assert {"icechunk", "parquet", "pictures", "s3", "xarray"} <= set(extras)
    assert how("s3") == "install skysub with the extra s3: pip install '.[s3]' in its folder"


def test_files_of_lsst_images(without, tmp_path):
    without("lsst")
    image = np.zeros((8, 8), np.float32)
    plain = skysub.VisitImage(
        image=image, mask=image.astype(np.int32), planes=skysub.MaskPlanes({"BAD": 0}), visit=1, detector=2
    )
    with pytest.raises(MissingPackageError, match=says("lsst")):
        skysub.write_lsst_images(plain, tmp_path / "a.fits")
