"""Kernels give the same bits compiled for this processor and for one without AVX-512."""

import json
import os
import pickle
import platform
import subprocess
import sys

import pytest

from skysub.simulation.detector import simulate_detector
from skysub.simulation.scene import named_scene

PROGRAM = """
import dataclasses, hashlib, json, pickle, sys
import numpy as np
import skysub
from skysub.psf import kernels as psf
from skysub.visit.fits import tile_kernels as tiles

def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()

found = {}
visit_image = pickle.load(open(sys.argv[1], "rb"))
rng = np.random.default_rng(1)
n, size = 12, 27
free = np.column_stack([rng.normal(2, 0.1, n), rng.normal(0, 0.05, (n, 2))])
x, y = 13 + rng.uniform(-0.5, 0.5, (2, n))
stamps = np.empty((n, size, size))
psf.moffats(free, 2.6, x, y, stamps)
found["profiles"] = digest(stamps)
stamps = 1e5 * stamps + rng.normal(0, 30, stamps.shape)
moments = np.empty((5, n))
psf.adaptive_moments(stamps, 30, *moments)
found["moments"] = digest(moments)
data, weights = np.zeros((2, n, size, psf.padded(size)))
data[:, :, :size], weights[:, :, :size] = stamps, 1 / 30
chi2 = np.empty(n)
psf.fit_moffats(data, weights, 3.0, 12, free, x, y, chi2)
found["fits"] = digest(free, x, y, chi2)
pixels = rng.integers(-(2**31), 2**31 - 1, 4072).astype(np.int32)
out = np.empty((1, 4072), np.float32)
tiles.to_floats(pixels, 0.0123, -7.7, 2, 17, tiles.dither_table(), True, int(pixels[3]), 0, 0, 4072, out)
found["dither"] = digest(out)
background = skysub.fit_background(visit_image.image, (visit_image.mask, 1))
found["statistics"] = digest(background.statistics.mean, background.statistics.error)
config = dataclasses.replace(skysub.CalibrateImageConfig(), psf=None)
result = skysub.calibrate_image(visit_image, config)
found["mask"] = digest(result.preliminary_visit_image.mask)
found["image"] = digest(result.preliminary_visit_image.image)
print(json.dumps(found))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 processors")
def test_the_same_bits_without_avx512(tmp_path):
    visit_image, _ = simulate_detector(named_scene("quiet"), 1, 0, seed=1, shape=(500, 520))
    path = tmp_path / "visit_image.pickle"
    path.write_bytes(pickle.dumps(visit_image))
    found = []
    for name in ("", "x86-64-v3"):
        # each compiles into a place of its own
        environment = os.environ | {
            "NUMBA_CACHE_DIR": str(tmp_path / f"cache{name}"),
            "TMPDIR": str(tmp_path),
        }
        if name:
            environment |= {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+bmi2,+lzcnt"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
