"""Planes in blocks of rows against arrays: what tasks see, what is kept, what neighbours are asked for."""

from itertools import pairwise

import numpy as np
import pytest

from skysub.background.row_blocks import AtOnce, RowBlocks, sheet
from skysub.background.rows import changed_rows, copied, made_rows, over_rows, rows_between, sampled

NY, NX = 40, 7


class Source:
    key = "made up"

    def __init__(self):
        self.image = np.arange(NY * NX, dtype=np.float32).reshape(NY, NX)
        self.asked = []

    def rows(self, name, rows):
        self.asked.append((name, rows))
        return {"image": self.image[rows.start : rows.stop], "half": self.image[rows.start : rows.stop] / 2}


def blocks_of(source, *, cuts=(0, 11, 24, 40), halo=2, held=0):
    dtypes = {"image": np.float32, "half": np.float32}
    return RowBlocks((NY, NX), cuts, halo=halo, source=source, dtypes=dtypes, executor=AtOnce(), held=held)


def total(units, image, *, edges, threads):  # noqa: ARG001 - every such function is given them
    return [float(image[edges[unit] : edges[unit + 1]].sum()) for unit in units]


def twice(rows, out, image, *, threads):  # noqa: ARG001
    out[rows.start : rows.stop] = 2 * image[rows.start : rows.stop]


def add(rows, plane, *, number, threads):  # noqa: ARG001
    plane[rows.start : rows.stop] += number


def smooth(units, plane, image, *, needed, threads):  # noqa: ARG001
    """Each unit gets the mean of all rows that it needs."""
    for unit in units:
        first, last = needed[unit]
        plane[first + 3 : last - 3] = image[first:last].mean()


def test_units_are_worked_on_once_and_in_order():
    source = Source()
    edges = np.array([0, 5, 9, 17, 30, 31, 40])
    parts = over_rows(total, (blocks_of(source).plane("image"),), spans=rows_between(edges), edges=edges)
    found = [value for part in parts for value in part]
    assert found == [float(source.image[a:b].sum()) for a, b in pairwise(edges)]
    # rows 17 to 29 reach farther than the second block holds
    assert [rows for _, rows in source.asked] == [range(13), range(9, 30), range(22, 40)]


def test_a_kept_plane_changes_in_place_and_its_copy_does_not():
    plane = made_rows(twice, (blocks_of(Source()).plane("image"),), np.float32, kept=True)
    before = copied(plane)
    changed_rows(add, plane, number=np.float32(1))
    (now,), (then,) = sampled((plane,), 1), sampled((before,), 1)
    np.testing.assert_array_equal(then, 2 * Source().image)
    np.testing.assert_array_equal(now, 2 * Source().image + 1)


def test_a_plane_made_of_one_that_changes_later_keeps_what_it_was_made_of():
    kept = made_rows(twice, (blocks_of(Source()).plane("image"),), np.float32, kept=True)
    lazy = made_rows(twice, (kept,), np.float32)
    changed_rows(add, kept, number=np.float32(1))
    np.testing.assert_array_equal(sampled((lazy,), 3)[0], 4 * Source().image[::3, ::3])
    with pytest.raises(TypeError, match="not kept"):
        changed_rows(add, lazy, number=np.float32(1))


def test_changes_that_reach_beyond_a_block_see_its_neighbours():
    edges = np.array([0, 8, 16, 27, 40])
    spans = rows_between(edges, margin=3)
    group = blocks_of(Source())
    plane = made_rows(twice, (group.plane("image"),), np.float32, kept=True)
    changed_rows(smooth, plane, (group.plane("half"),), spans=spans, needed=spans)
    whole = 2 * Source().image
    changed_rows(smooth, whole, (Source().image / 2,), spans=spans, needed=spans)
    np.testing.assert_array_equal(sampled((plane,), 1)[0], whole)


def test_what_was_read_is_kept_as_far_as_there_is_room():
    row = NX * 4
    for held, reads in ((0, 6), (31 * row, 4), (1 << 20, 3)):
        source = Source()
        source.key = held
        image = blocks_of(source, held=held).plane("image")
        for _ in range(2):
            assert sampled((image,), 1)[0].tolist() == source.image.tolist()
        assert len(source.asked) == reads


def test_a_sheet_is_of_zeros_that_can_be_written_to():
    for shape in ((3, 4), (3000, 1000)):
        made = sheet(shape, np.dtype(np.float32))
        assert not made[::7].any()
        made[1] = 5
        assert made[1].sum() == 5 * shape[1]
        assert made.flags.c_contiguous
