import pickle
import re
import subprocess
import sys
import threading
import weakref
from typing import ClassVar

import dask
import dask.array as da
import distributed
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import skysub
from skysub import BackgroundConfig
from skysub.background.superpixels import SuperpixelGrid
from skysub.errors import InvalidImageError, NoUsableSuperpixelsError, SkysubError, UndersampledError

SMALL = BackgroundConfig(superpixel=8, order=2)


@pytest.fixture(autouse=True)
def _synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module", params=[1, 2, 4])
def client(request):
    with (
        distributed.LocalCluster(
            n_workers=request.param, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def sky(shape, seed=1, dtype=np.float32):
    rng = np.random.default_rng(seed)
    ny, nx = shape[-2:]
    y, x = np.mgrid[:ny, :nx]
    return (rng.normal(200, 10, shape) + 30 * x / nx - 20 * (y / ny) ** 2).astype(dtype)


def assert_same(found, expected):
    assert found.order == expected.order
    assert found.reduced == expected.reduced
    assert found.config == expected.config
    for name in ("mean", "error", "count"):
        np.testing.assert_array_equal(getattr(found.statistics, name), getattr(expected.statistics, name))
    for name in ("coefficients", "covariance", "usable"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@st.composite
def cut(draw, length):
    """Chunks of any sizes that sum up to ``length``."""
    borders = draw(st.sets(st.integers(1, length - 1), max_size=5)) if length > 1 else ()
    return tuple(np.diff([0, *sorted(borders), length]).tolist())


@st.composite
def cases(draw):
    """An image, pixels to ignore, chunks of both, and settings."""
    shape = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.uint16, ">f4"]))
    image = rng.normal(1000, 10, shape).astype(dtype)
    if image.dtype.kind == "f":
        image[rng.random(shape) < draw(st.sampled_from([0, 0.1]))] = np.nan
    planes = rng.integers(0, 8, shape).astype(np.int32)
    ignored = draw(st.sampled_from([None, planes == 1, (planes, 2)]))
    config = BackgroundConfig(
        superpixel=draw(st.sampled_from([5, 16, (7, 11)])),
        statistic=draw(st.sampled_from(["meanclip", "mean", "median"])),
        order=draw(st.integers(0, 4)),
        undersampled=draw(st.sampled_from(["reduce", "raise", "refine"])),
        superpixel_filter=draw(st.sampled_from([0, 3])),
    )
    chunks = draw(cut(shape[0])), draw(cut(shape[1]))
    mask_chunks = draw(st.one_of(st.none(), st.tuples(cut(shape[0]), cut(shape[1]))))
    return image, ignored, config, chunks, mask_chunks


def as_blocks(ignored, chunks):
    if ignored is None or chunks is None:
        return ignored
    if isinstance(ignored, tuple):
        return da.from_array(ignored[0], chunks=chunks), ignored[1]
    return da.from_array(ignored, chunks=chunks)


def check_same_as_numpy(case, compute=dask.compute):
    image, ignored, config, chunks, mask_chunks = case
    blocks, ignored_blocks = da.from_array(image, chunks=chunks), as_blocks(ignored, mask_chunks)
    try:
        expected, background = skysub.subtract_background(image, ignored, config)
    except SkysubError as error:
        with pytest.raises(type(error), match=f"^{re.escape(str(error))}$"):
            compute(*skysub.subtract_background(blocks, ignored_blocks, config))
        return
    lazily, lazy_background = skysub.subtract_background(blocks, ignored_blocks, config)
    assert lazily.chunks == blocks.chunks
    assert lazily.dtype == expected.dtype
    found, found_background = compute(lazily, lazy_background)
    np.testing.assert_array_equal(found, expected, strict=True)
    assert_same(found_background, background)
    np.testing.assert_array_equal(found_background.grid.x_edges, background.grid.x_edges)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_chunking_has_the_bits_of_numpy(case):
    check_same_as_numpy(case)


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(case=cases())
def test_every_number_of_worker_processes_has_the_bits_of_numpy(client, case):
    with client.as_current(), dask.config.set(scheduler=client.get):
        check_same_as_numpy(case)


def test_threads_have_the_bits_of_numpy():
    image = sky((300, 310))
    expected, _ = skysub.subtract_background(image, None, SMALL)
    found, _ = skysub.subtract_background(da.from_array(image, chunks=64), None, SMALL, threads=2)
    np.testing.assert_array_equal(found.compute(scheduler="threads", num_workers=4), expected)


@pytest.mark.parametrize("detectors", [1, 2, (2, 1), 3])
@pytest.mark.parametrize("undersampled", ["reduce", "refine"])
def test_each_detector_of_a_stack_has_its_own_fit(detectors, undersampled):
    config = BackgroundConfig(superpixel=8, order=5, undersampled=undersampled)
    image = sky((3, 60, 61))
    image[1] *= 2
    mask = np.zeros(image.shape, np.int32)
    mask[2, :, 20:] = 4  # leaves too few superpixels for the order
    blocks = da.from_array(image, chunks=(detectors, 25, 30))
    found, backgrounds = dask.compute(*skysub.subtract_background(blocks, (mask, 4), config))
    assert len(backgrounds) == 3
    for i, background in enumerate(backgrounds):
        expected, alone = skysub.subtract_background(image[i], (mask[i], 4), config)
        np.testing.assert_array_equal(found[i], expected)
        assert_same(background, alone)


def test_one_detector_of_a_stack_needs_no_other():
    def pixels(detector):
        if detector != 1:
            raise AssertionError("another detector was read")
        return sky((40, 41))

    stack = da.stack(
        [da.from_delayed(dask.delayed(pixels)(i), (40, 41), dtype=np.float32).rechunk(20) for i in range(3)]
    )
    subtracted, backgrounds = skysub.subtract_background(stack, None, SMALL)
    expected, background = skysub.subtract_background(sky((40, 41)), None, SMALL)
    np.testing.assert_array_equal(subtracted[1].compute(), expected)
    assert_same(backgrounds[1].compute(), background)


def test_nothing_is_read_before_compute():
    def read():
        raise AssertionError("read too early")

    image = da.from_delayed(dask.delayed(read)(), (40, 41), dtype=np.float32)
    for undersampled in ("reduce", "raise"):
        config = BackgroundConfig(superpixel=8, order=2, undersampled=undersampled)
        skysub.subtract_background(image, None, config)
        skysub.fit_background(image, None, config)


class Source:
    """An array that counts how often it is read, and how many blocks are alive at once.

    It pickles by name, so that a cluster within this process counts too.
    """

    known: ClassVar[dict] = {}

    def __init__(self, pixels):
        self.pixels, self.shape, self.dtype, self.ndim = pixels, pixels.shape, pixels.dtype, pixels.ndim
        self.reads = self.alive = self.most_alive = 0
        self.lock = threading.Lock()
        self.known[id(self)] = self

    def __reduce__(self):
        return recalled, (id(self),)

    def __getitem__(self, index):
        block = self.pixels[index].copy()
        with self.lock:
            self.reads += 1
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(block, self.gone)
        return block

    def gone(self):
        with self.lock:
            self.alive -= 1


def recalled(name):
    return Source.known[name]


def fused(source):
    return da.from_array(source, chunks=20, asarray=False, meta=np.empty((0, 0), np.float32))


def separate(source):
    """Reads as tasks of their own, as reader functions under `dask.delayed` have them."""

    def rows(i):
        return [
            da.from_delayed(read(source, i, j), (20, 20), np.float32) for j in range(source.shape[1] // 20)
        ]

    read = dask.delayed(lambda source, i, j: source[20 * i : 20 * i + 20, 20 * j : 20 * j + 20])
    return da.block([rows(i) for i in range(source.shape[0] // 20)])


@pytest.mark.parametrize("arranged", [fused, separate])
@pytest.mark.parametrize("superpixel", [10, 8])
@pytest.mark.parametrize("scheduler", ["synchronous", "distributed"])
def test_blocks_are_read_again_rather_than_held(arranged, superpixel, scheduler):
    source = Source(sky((400, 60)))
    config = BackgroundConfig(superpixel=superpixel, order=2)
    total, _ = skysub.subtract_background(arranged(source), None, config)
    total = abs(total).sum()
    if scheduler == "distributed":
        # in this process, so that the worker's reads are counted
        with (
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
            ) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            client.compute(total).result()
    else:
        total.compute()
    assert source.reads == 2 * 60
    # whole rows of blocks wait for their neighbours where chunks are not unions of superpixels
    assert source.most_alive <= (4 if superpixel == 10 else 15)


def test_persisted_and_computed_images(client):
    image = sky((90, 80))
    expected, background = skysub.subtract_background(image, None, SMALL)
    with client.as_current():
        persisted = client.persist(da.from_array(image, chunks=30) * np.float32(1))
        found, lazy = skysub.subtract_background(persisted, None, SMALL)
        np.testing.assert_array_equal(client.compute(found).result(), expected)
        assert_same(client.compute(lazy).result(), background)
        assert_same(client.persist(lazy).compute(), background)
        model = client.compute(lazy.evaluate()).result()
    np.testing.assert_array_equal(model, background.evaluate())


def test_models_are_evaluated_lazily():
    image = sky((90, 80))
    background = skysub.fit_background(image, None, SMALL)
    lazy = skysub.fit_background(da.from_array(image, chunks=(37, 41)), None, SMALL)
    assert lazy.shape == (90, 80)
    assert lazy.evaluate().chunks == ((37, 37, 16), (41, 39))
    window = {"y": slice(30, 50), "x": slice(3, None)}
    for name in ("evaluate", "uncertainty"):
        model = getattr(lazy, name)()
        assert model.dtype == np.float32
        np.testing.assert_array_equal(model.compute(), getattr(background, name)())
        np.testing.assert_array_equal(
            getattr(lazy, name)(**window).compute(), getattr(background, name)(**window)
        )
    assert_same(pickle.loads(pickle.dumps(lazy)).compute(), background)
    assert "90 x 80 pixels" in repr(lazy)


def test_statistics_are_measured_once_for_image_and_background():
    source = Source(sky((400, 60)))
    dask.compute(*skysub.subtract_background(fused(source), None, BackgroundConfig(superpixel=10, order=2)))
    assert source.reads == 2 * 60


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_aligned_chunks_are_unions_of_superpixels_near_those_given(data):
    shape = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    config = BackgroundConfig(superpixel=data.draw(st.sampled_from([1, 7, 16, (9, 5)])))
    array = da.zeros(shape, chunks=tuple(data.draw(cut(n)) for n in shape))
    aligned = skysub.align_chunks(array, config)
    assert aligned.shape == shape
    grid = SuperpixelGrid.over(shape, config)
    for edges, given_sizes, sizes in zip(
        (grid.y_edges, grid.x_edges), array.chunks, aligned.chunks, strict=True
    ):
        assert 0 not in sizes
        borders = np.cumsum([0, *sizes])
        assert np.isin(borders, edges).all()
        wide = np.diff(edges).max()
        assert all(np.abs(borders - b).min() <= (wide + 1) // 2 for b in np.cumsum(given_sizes))
    assert skysub.align_chunks(aligned, config).chunks == aligned.chunks


def test_aligned_chunks_of_a_detector_mix_127_and_128():
    aligned = skysub.align_chunks(da.zeros((189, 4000, 4072), chunks=(1, 1000, 1018)))
    assert aligned.chunks == ((1,) * 189, (1000,) * 4, (1018,) * 4)
    one = skysub.align_chunks(da.zeros((4000, 4072), chunks=(100, 128)))
    assert set(one.chunks[0]) == {125}
    assert set(one.chunks[1]) == {127, 128}


def test_chunks_of_no_pixels_are_dropped():
    image = sky((40, 41))
    blocks = da.from_array(image, chunks=((0, 20, 0, 20), (41,)))
    found, _ = skysub.subtract_background(blocks, None, SMALL)
    np.testing.assert_array_equal(found.compute(), skysub.subtract_background(image, None, SMALL)[0])


def test_one_pixel():
    config = BackgroundConfig(order=0, weighting=False)
    found, background = skysub.subtract_background(da.full((1, 1), 7.0, chunks=1), None, config)
    assert found.compute() == 0
    assert background.compute().statistics.mean == 7


def test_nothing_usable_names_the_detector():
    image = sky((3, 40, 41))
    image[1] = np.nan
    subtracted, backgrounds = skysub.subtract_background(
        da.from_array(image, chunks=(1, 20, 20)), None, SMALL
    )
    with pytest.raises(NoUsableSuperpixelsError, match=r"detector 1 of the stack: .*every pixel is masked"):
        subtracted.compute()
    np.testing.assert_array_equal(
        subtracted[0].compute(), skysub.subtract_background(image[0], None, SMALL)[0]
    )
    assert backgrounds[2].compute().order == 2


def test_too_few_superpixels_raise_where_asked_to(client):
    config = BackgroundConfig(superpixel=20, order=6, undersampled="raise")
    lazy = skysub.fit_background(da.from_array(sky((40, 41)), chunks=20), None, config)
    with pytest.raises(UndersampledError, match="order 6 reduced"):
        client.compute(lazy).result()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (da.zeros(9), r"shape \(ny, nx\) or \(detector, ny, nx\), not 1 dimensions"),
        (da.zeros((2, 2, 2, 2)), "not 4 dimensions"),
        (da.zeros((0, 9)), "at least one pixel"),
        (da.zeros((9, 9), dtype=complex), "real numbers, not complex128"),
        (da.zeros((9, 9), dtype=object, chunks=3), "real numbers, not object"),
        (da.zeros((9, 9))[da.zeros(9, dtype=bool)], "compute_chunk_sizes"),
        (dask.delayed(np.zeros)((9, 9)), r"NumPy or Dask array, not dask\.delayed\.Delayed"),
    ],
)
def test_bad_images(image, message):
    for call in (skysub.fit_background, skysub.subtract_background, skysub.align_chunks):
        with pytest.raises(InvalidImageError, match=message):
            call(image)


@pytest.mark.parametrize(
    ("ignored", "message"),
    [
        (da.zeros((9, 8), dtype=bool), r"mask \(9, 8\) does not match that of the image \(9, 9\)"),
        (np.zeros((3, 9, 9), bool), r"mask \(3, 9, 9\) does not match"),
        (da.zeros((9, 9)), r"must be of bool, not float64"),
        ((da.zeros((9, 9)), 1), "must be of integers"),
        ((da.zeros((9, 9), dtype=np.int32), 1 << 40), "do not fit"),
        ((da.zeros((9, 9), dtype=np.int32), 1, 2), "3 items"),
        (da.zeros((9, 9), dtype=bool)[da.zeros(9, dtype=bool)], "does not match"),
    ],
)
def test_bad_masks(ignored, message):
    with pytest.raises(InvalidImageError, match=message):
        skysub.fit_background(da.zeros((9, 9)), ignored)


def test_masked_blocks_are_refused():
    image = da.ma.masked_less(da.from_array(sky((40, 41)), chunks=20), 0)
    lazy = skysub.fit_background(image, None, SMALL)
    with pytest.raises(InvalidImageError, match="masked array"):
        lazy.compute()


def test_workers_compile_nothing_and_import_little(client):
    image = sky((40, 41))
    skysub.subtract_background(image, np.zeros(image.shape, bool), SMALL)  # fills the cache of the machine
    blocks = da.from_array(image, chunks=20)
    client.compute(skysub.subtract_background(blocks, np.zeros(image.shape, bool), SMALL)[0]).result()

    def seen():
        import sys

        from numba.core.dispatcher import Dispatcher

        dispatchers = {
            f"{module.__name__}.{value.__name__}": value
            for name, module in list(sys.modules.items())
            if name.startswith("skysub")
            for value in list(vars(module).values())
            if isinstance(value, Dispatcher)
        }
        compiled = [name for name, one in dispatchers.items() if sum(one.stats.cache_misses.values())]
        extra = {"astropy", "zarr", "matplotlib"} & set(sys.modules)
        return compiled, extra

    for compiled, extra in client.run(seen).values():
        assert not compiled
        assert not extra


def test_skysub_imports_no_dask_until_blocks_are_given():
    code = (
        "import sys, numpy, skysub\n"
        "skysub.fit_background(numpy.random.default_rng(1).normal(size=(40, 40)), None,"
        " skysub.BackgroundConfig(superpixel=8, order=1))\n"
        "assert 'dask' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
