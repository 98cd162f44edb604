"""Loops over the tiles of compressed images: RICE, bytes put together again, integers back to pixels.

Nothing in a file decides what is read: a stream is read through `_refill`, which looks at its end each time,
and how many pixels a tile has comes from the caller's array. Shifts are by less than the width of a word.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.visit.fits.leading_zeros import leading_zeros

__all__ = ["RANDOM", "dither_table", "to_floats", "unpack_bytes", "unpack_rice", "unrice"]

RANDOM = 10000
"""Random numbers of FITS."""
NO_DITHER, DITHER_1, DITHER_2 = -1, 1, 2
"""Methods of dither; the second keeps zeros."""
_ZERO = -2147483646
"""Stands for a zero of the second method."""
_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inner = njit(nogil=True, error_model="numpy")
_forced = njit(nogil=True, error_model="numpy", forceinline=True)


def dither_table() -> np.ndarray:
    """Random numbers of FITS (standard 4.0, appendix I), (RANDOM,) float32."""
    table, seed = np.empty(RANDOM, np.float32), 1
    for i in range(RANDOM):
        seed = seed * 16807 % 2147483647
        table[i] = seed / 2147483647
    return table


@_forced
def _refill(data, position, end, word, held):
    """Fill a word, whose ``held`` first bits (63 at most) are the next ones of the stream, up to 56 or more.

    At the end of the stream there are fewer. Bits behind them are those that come next, or zeros.
    """
    if position + 8 <= end:
        # unsigned, or places from the end would be thought of
        at = np.uint64(position)
        eight = np.uint64(data[at]) << np.uint64(56)
        eight |= np.uint64(data[at + np.uint64(1)]) << np.uint64(48)
        eight |= np.uint64(data[at + np.uint64(2)]) << np.uint64(40)
        eight |= np.uint64(data[at + np.uint64(3)]) << np.uint64(32)
        eight |= np.uint64(data[at + np.uint64(4)]) << np.uint64(24)
        eight |= np.uint64(data[at + np.uint64(5)]) << np.uint64(16)
        eight |= np.uint64(data[at + np.uint64(6)]) << np.uint64(8)
        eight |= np.uint64(data[at + np.uint64(7)])
        return position + ((63 - held) >> 3), word | (eight >> np.uint64(held)), held | 56
    return _refill_last(data, position, end, word, held)


@_inner
def _refill_last(data, position, end, word, held):
    """`_refill` where fewer than eight bytes are left."""
    while held <= 56 and position < end:
        word |= np.uint64(data[position]) << np.uint64(56 - held)
        position += 1
        held += 8
    return position, word, held


@_forced
def _difference(coded):
    """Signed number that was coded as an unsigned one: 0, -1, 1, -2, ..."""
    half = np.uint32(coded >> np.uint32(1))
    return np.uint32(half ^ np.uint32(np.uint32(0) - np.uint32(coded & np.uint32(1))))


@_forced
def _coded(word, zeros, split):
    """Number of ``zeros`` zero bits, a one, and ``split`` more bits; all of them are in the word."""
    # two shifts where one may be by 64
    low = np.uint32(((word << np.uint64(zeros + 1)) >> np.uint64(1)) >> np.uint64(63 - split))
    return np.uint32(np.uint64(zeros) << np.uint64(split)) | low


@_inner
def _long_number(data, position, end, word, held, split):
    """A number that is not whole in the word; ``held`` is -1 where the stream ends before it does."""
    zeros, many = np.int64(leading_zeros(word)), np.int64(0)
    while zeros >= held:
        # all that is held are zeros
        many += held
        position, word, held = _refill(data, position, end, np.uint64(0), np.int64(0))
        if held == 0:
            return position, word, np.int64(-1), np.uint32(0)
        zeros = np.int64(leading_zeros(word))
    word = (word << np.uint64(zeros)) << np.uint64(1)
    held -= zeros + 1
    if held < split:
        position, word, held = _refill(data, position, end, word, held)
        if held < split:
            return position, word, np.int64(-1), np.uint32(0)
    low = np.uint32((word >> np.uint64(1)) >> np.uint64(63 - split))
    coded = np.uint32(np.uint64(many + zeros) << np.uint64(split)) | low
    return position, word << np.uint64(split), held - split, coded


@_inner
def _begin(data, start, end, width):
    """First pixel of a stream; ``held`` is -1 where it ends before."""
    position, word, held = _refill(data, start, end, np.uint64(0), np.int64(0))
    value = np.uint32(word >> np.uint64(64 - width))
    return position, word << np.uint64(width), held - width if held >= width else np.int64(-1), value


@_inner
def _split_of(data, position, end, word, held, code):
    """How many low bits of each number of a block are written as they are, less than 0 for no difference."""
    position, word, held = _refill(data, position, end, word, held)
    if held < code:
        return position, word, np.int64(-1), np.int64(0)
    split = np.int64(word >> np.uint64(64 - code)) - 1
    return position, word << np.uint64(code), held - code, split


@_inner
def _block(data, position, end, word, held, value, split, most, width, out):
    """Pixels of a block; ``held`` is -1 where the stream ends before the last one."""
    if split < 0:
        # no pixel differs from the one before
        for i in range(len(out)):
            out[i] = np.int32(value)
    elif split >= most:
        for i in range(len(out)):
            position, word, held = _refill(data, position, end, word, held)
            if held < width:
                return position, word, np.int64(-1), value
            value += _difference(np.uint32(word >> np.uint64(64 - width)))
            word <<= np.uint64(width)
            held -= width
            out[i] = np.int32(value)
    else:
        for i in range(len(out)):
            # every other pixel, which processors foresee
            if i & 1 == 0:
                position, word, held = _refill(data, position, end, word, held)
            zeros = np.int64(leading_zeros(word))
            if zeros + 1 + split <= held:
                # nearly always
                value += _difference(_coded(word, zeros, split))
                word <<= np.uint64(zeros + 1 + split)
                held -= zeros + 1 + split
            else:
                position, word, held, coded = _long_number(data, position, end, word, held, split)
                if held < 0:
                    return position, word, held, value
                value += _difference(coded)
            out[i] = np.int32(value)
    return position, word, held, value


@_compiled
def unrice(data, start, stop, width, block, out):
    """Undo RICE_1 (FITS standard 4.0, section 10.4.1): bytes start to stop of a stream to integers.

    Parameters
    ----------
    data
        (n,) uint8; ``start`` and ``stop`` are cut to it.
    width
        Bits of a pixel: 8, 16 or 32.
    block
        Pixels whose differences have been coded alike.
    out
        (m,) int32, written: pixels of 8 bits from 0 to 255, all others signed.

    Returns
    -------
    good
        False where the stream ends before the last pixel.
    """
    end = min(stop, np.int64(len(data)))
    code, most = (3, 6) if width == 8 else ((4, 14) if width == 16 else (5, 25))
    position, word, held, value = _begin(data, max(np.int64(0), start), end, width)
    first = 0
    while held >= 0 and first < len(out):
        position, word, held, split = _split_of(data, position, end, word, held, code)
        if held >= 0:
            part = out[first : min(first + block, len(out))]
            position, word, held, value = _block(
                data, position, end, word, held, value, split, most, width, part
            )
        first += block
    _cut(out, width)
    return held >= 0


@_inner
def _cut(pixels, width):
    """Cut pixels to their width."""
    if width == 16:
        for i in range(len(pixels)):
            pixels[i] = np.int16(pixels[i])
    elif width == 8:
        for i in range(len(pixels)):
            pixels[i] = np.uint8(pixels[i])


@_inner
def _join(data, size, shuffled, out):
    """Integers of ``size`` bytes, 2 or 4, the highest first, to (n,) int32; two bytes are a signed number.

    Shuffled bytes (GZIP_2) lie in planes: first the highest of all numbers, then the next. ``data`` has
    ``size`` n bytes, which the caller sees to.
    """
    n = len(out)
    if size == 4 and shuffled:
        a, b, c, d = data[:n], data[n : 2 * n], data[2 * n : 3 * n], data[3 * n : 4 * n]
        for i in range(n):
            out[i] = np.int32(
                np.uint32(a[i]) << np.uint32(24)
                | np.uint32(b[i]) << np.uint32(16)
                | np.uint32(c[i]) << np.uint32(8)
                | np.uint32(d[i])
            )
    elif size == 4:
        for i in range(n):
            at = np.uint64(4 * i)
            out[i] = np.int32(
                np.uint32(data[at]) << np.uint32(24)
                | np.uint32(data[at + np.uint64(1)]) << np.uint32(16)
                | np.uint32(data[at + np.uint64(2)]) << np.uint32(8)
                | np.uint32(data[at + np.uint64(3)])
            )
    else:
        # the second byte of a number, and how far numbers are from each other
        low, step = (n, 1) if shuffled else (1, 2)
        for i in range(n):
            high = np.uint16(data[np.uint64(i * step)]) << np.uint16(8)
            out[i] = np.int32(np.int16(high | np.uint16(data[np.uint64(low + i * step)])))


@_compiled
def unpack_rice(
    data, starts, stops, first, last, width, block, high, wide, quantised, numbers, scaling, random, bits, out
):
    """Unpack tiles ``first`` to ``last`` of an image, packed by RICE_1, but for those without a byte.

    Parameters
    ----------
    data, starts, stops
        (n,) uint8, and where each tile lies in it, (tiles,) int64.
    width, block
        As `unrice` has them.
    high, wide
        Rows and columns of a tile; the last ones have what is left.
    quantised, numbers, scaling, random
        Whether integers are to be scaled; and then method of dither, the file's seed, whether an integer
        stands for NaN, and which, (4,) int64; scale and zero of each tile, (tiles, 2) float64; and
        `dither_table`.
    bits, out
        (ny, nx) int32 and float32, the same memory: written.

    Returns
    -------
    bad
        Number of the first tile that ends before its last pixel; -1 where there is none.
    """
    ny, nx = out.shape
    across = (nx + wide - 1) // wide
    room = np.empty(high * wide, np.int32)
    for tile in range(first, last):
        if stops[tile] <= starts[tile]:
            continue
        y, x = tile // across * high, tile % across * wide
        rows, columns = min(high, ny - y), min(wide, nx - x)
        pixels = room[: rows * columns]
        if not unrice(data, starts[tile], stops[tile], width, block, pixels):
            return tile
        _place(pixels, tile, quantised, numbers, scaling, random, y, x, columns, bits, out)
    return -1


@_compiled
def unpack_bytes(
    data, first, last, size, shuffled, high, wide, quantised, numbers, scaling, random, bits, out
):
    """Unpack tiles ``first`` to ``last`` of an image, integers of ``size`` bytes one after the other.

    Parameters are those of `unpack_rice`; returns the first tile that ``data`` has no bytes for, or -1.
    """
    ny, nx = out.shape
    across = (nx + wide - 1) // wide
    room = np.empty(high * wide, np.int32)
    at = 0
    for tile in range(first, last):
        y, x = tile // across * high, tile % across * wide
        rows, columns = min(high, ny - y), min(wide, nx - x)
        pixels = room[: rows * columns]
        if at + size * len(pixels) > len(data):
            return tile
        _join(data[at : at + size * len(pixels)], size, shuffled, pixels)
        at += size * len(pixels)
        _place(pixels, tile, quantised, numbers, scaling, random, y, x, columns, bits, out)
    return -1


@_inner
def _place(pixels, tile, quantised, numbers, scaling, random, y, x, columns, bits, out):
    """Put the integers of a tile to its place in the image."""
    if quantised:
        method, row = numbers[0], tile + numbers[1]
        scale, zero = scaling[tile, 0], scaling[tile, 1]
        to_floats(pixels, scale, zero, method, row, random, numbers[2] != 0, numbers[3], y, x, columns, out)
        return
    for j in range(len(pixels) // columns):
        row, here = pixels[j * columns :], bits[y + j, x : x + columns]
        for i in range(columns):
            here[i] = row[i]


@_compiled
def to_floats(pixels, scale, zero, method, row, random, has_blank, blank, y, x, columns, out):
    """Quantised pixels of a tile back to floating point, as the FITS standard 4.0, section 10.2, has it.

    Parameters
    ----------
    pixels
        (n,) int32.
    method, row
        Of dither, and number of the tile, the file's seed added.
    random
        (RANDOM,) float32, of `dither_table`.
    has_blank, blank
        Integer that stands for NaN, where there is one.
    y, x, columns
        First pixel of the tile in the image, and its width.
    out
        (ny, nx) float32, written at the tile's place.
    """
    nan, blank = np.float32(np.nan), np.int32(blank)
    seed = (row - 1) % RANDOM
    at = np.int64(random[seed] * np.float32(500))
    for j in range(len(pixels) // columns):
        line, here = pixels[j * columns :], out[y + j, x : x + columns]
        done = 0
        while done < columns:
            # up to where the table of random numbers ends
            count = columns - done if method == NO_DITHER else min(columns - done, RANDOM - at)
            part, place = line[done : done + count], here[done : done + count]
            if method == NO_DITHER:
                for i in range(count):
                    place[i] = np.float32(np.float64(part[i]) * scale + zero)
            else:
                numbers = random[at : at + count]
                for i in range(count):
                    place[i] = np.float32((np.float64(part[i]) - np.float64(numbers[i]) + 0.5) * scale + zero)
                at += count
                if at == RANDOM:
                    seed = (seed + 1) % RANDOM
                    at = np.int64(random[seed] * np.float32(500))
                if method == DITHER_2:
                    for i in range(count):
                        place[i] = np.float32(0) if part[i] == _ZERO else place[i]
            if has_blank:
                for i in range(count):
                    place[i] = nan if part[i] == blank else place[i]
            done += count
