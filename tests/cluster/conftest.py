"""A scheduler on loopback, and worker processes that come and go, as they do on a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import skysub
from skysub.visit.planes import MaskPlanes

ROOT = Path(skysub.__file__).parents[1]


def write_visits(folder, visits, detectors, *, first=0, band="r", seed=0):
    """Images of a sky with a gradient."""
    y, x = np.mgrid[:96, :128]
    for visit in range(first, first + visits):
        for detector in range(detectors):
            rng = np.random.default_rng([seed, visit, detector])
            image = (900 + 0.05 * x + 0.02 * y + rng.normal(0, 30, (96, 128))).astype(np.float32)
            made = skysub.VisitImage(
                image=image,
                mask=np.zeros(image.shape, np.int32),
                planes=MaskPlanes({"BAD": 0}),
                variance=np.full(image.shape, 900, np.float32),
                visit=visit,
                detector=detector,
                band=band,
            )
            skysub.write_visit_image(made, folder / f"v{visit}_d{detector}.fits")
    return folder


class Place:
    """A Dask scheduler of this process, and workers as processes."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        self.address = cluster.scheduler_address
        self.workers = []

    def worker(self, *arguments, path=None, **environment):
        """Start a worker; ``path`` stands before all that it may import."""
        environment = {**os.environ, **environment}
        if path is not None:
            environment["PYTHONPATH"] = os.pathsep.join(
                [str(path), *filter(None, [os.environ.get("PYTHONPATH")])]
            )
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--no-nanny"]
        command += ["--no-dashboard", "--local-directory", str(self.folder), *arguments]
        made = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder
        )
        self.workers.append(made)
        return made

    def close(self):
        for each in self.workers:
            each.terminate()
        for each in self.workers:
            each.wait(20)


@pytest.fixture
def place(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        made = Place(cluster, tmp_path)
        yield made
        made.close()


@pytest.fixture
def impostor(tmp_path):
    """Make a folder that holds another skysub: one of a version, or one that cannot be imported."""

    def make(content):
        folder = tmp_path / "impostor"
        folder.mkdir()
        (folder / "skysub.py").write_text(content)
        return folder

    return make
