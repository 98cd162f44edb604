"""Kernels of the source mask are compiled once a machine."""

import dataclasses
import importlib
import multiprocessing
import os

import numpy as np

import skysub
from skysub.visit.image import VisitImage
from skysub.visit.planes import AFW_PLANES

MODULES = ("kernels", "detection_kernels", "run_kernels", "paint_kernels", "block_kernels")


def calibrate(_):
    """Compilations and loads of each kernel in a process of its own."""
    rng = np.random.default_rng(1)
    image = rng.normal(500, 5, (160, 200)).astype(np.float32)
    image[80:84, 90:94] += 500
    mask = np.zeros(image.shape, np.int32)
    visit_image = VisitImage(image=image, mask=mask, planes=AFW_PLANES, visit=1, detector=0)
    for name in ("default", "lsst"):
        config = skysub.CalibrateImageConfig.named(name)
        skysub.calibrate_image(visit_image, dataclasses.replace(config, psf=None))
    counted = {}
    for name in MODULES:
        module = importlib.import_module(f"skysub.sources.{name}")
        for kernel in vars(module).values():
            if hasattr(kernel, "stats") and kernel.py_func.__module__ == module.__name__:
                stats = kernel.stats
                counted[kernel.__name__] = sum(stats.cache_misses.values()), sum(stats.cache_hits.values())
    return counted


def test_processes_that_start_together_compile_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    before = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("TMPDIR")
    os.environ["NUMBA_CACHE_DIR"], os.environ["TMPDIR"] = str(tmp_path / "cache"), str(tmp_path)
    try:
        with context.Pool(3) as pool:
            counted = pool.map(calibrate, range(3), chunksize=1)
    finally:
        for name, value in zip(("NUMBA_CACHE_DIR", "TMPDIR"), before, strict=True):
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    compiled = [{kernel for kernel, (misses, _) in one.items() if misses} for one in counted]
    assert sum(bool(kernels) for kernels in compiled) == 1, compiled
    assert sum(any(hits for _, hits in one.values()) for one in counted) >= 2
