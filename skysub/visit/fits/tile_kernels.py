"""Loops over the tiles of compressed images: RICE, bytes put together again, integers back to pixels.

Nothing in a file decides what is read: a stream is read through `_refill`, which looks at its end each time,
and how many pixels a tile has comes from the caller's array. Shifts are by less than the width of a word.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from skysub.visit.fits.leading_zeros import leading_zeros

__all__ = ["RANDOM", "dither_table", "join_bytes", "to_floats", "to_integers", "unrice"]

RANDOM = 10000
"""Random numbers of FITS."""
NO_DITHER, DITHER_1, DITHER_2 = -1, 1, 2
"""Methods of dither; the second keeps zeros."""
_ZERO = -2147483646
"""Stands for a zero of the second method."""
_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inlined = njit(nogil=True, inline="always")


def dither_table() -> np.ndarray:
    """Random numbers of FITS (standard 4.0, appendix I), (RANDOM,) float32."""
    table, seed = np.empty(RANDOM, np.float32), 1
    for i in range(RANDOM):
        seed = seed * 16807 % 2147483647
        table[i] = seed / 2147483647
    return table


@_inlined
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
        word |= eight >> np.uint64(held)
        position += (63 - held) >> 3
        held |= 56
    else:
        while held <= 56 and position < end:
            word |= np.uint64(data[position]) << np.uint64(56 - held)
            position += 1
            held += 8
    return position, word, held


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
    position, end = max(np.int64(0), start), min(stop, np.int64(len(data)))
    code, most = (3, 6) if width == 8 else ((4, 14) if width == 16 else (5, 25))
    word, held = np.uint64(0), np.int64(0)
    position, word, held = _refill(data, position, end, word, held)
    if held < width:
        return False
    value = np.uint32(word >> np.uint64(64 - width))
    word <<= np.uint64(width)
    held -= width
    first = 0
    while first < len(out):
        last = min(first + block, len(out))
        position, word, held = _refill(data, position, end, word, held)
        if held < code:
            return False
        split = np.int64(word >> np.uint64(64 - code)) - 1
        word <<= np.uint64(code)
        held -= code
        if split < 0:
            # no pixel differs from the one before
            for i in range(first, last):
                out[i] = np.int32(value)
        elif split >= most:
            for i in range(first, last):
                position, word, held = _refill(data, position, end, word, held)
                if held < width:
                    return False
                value += _difference(np.uint32(word >> np.uint64(64 - width)))
                word <<= np.uint64(width)
                held -= width
                out[i] = np.int32(value)
        else:
            for i in range(first, last):
                # every other pixel, which processors foresee
                if (i - first) & 1 == 0:
                    position, word, held = _refill(data, position, end, word, held)
                zeros = np.int64(leading_zeros(word))
                if zeros + 1 + split <= held:
                    # nearly always: all of the pixel is held. Two shifts, as one may be by 64
                    word = (word << np.uint64(zeros)) << np.uint64(1)
                    low = np.uint32((word >> np.uint64(1)) >> np.uint64(63 - split))
                    word <<= np.uint64(split)
                    held -= zeros + 1 + split
                    value += _difference(np.uint32(np.uint64(zeros) << np.uint64(split)) | low)
                    out[i] = np.int32(value)
                    continue
                many = np.int64(0)
                while zeros >= held:
                    # all that is held are zeros
                    many += held
                    word, held = np.uint64(0), np.int64(0)
                    position, word, held = _refill(data, position, end, word, held)
                    if held == 0:
                        return False
                    zeros = np.int64(leading_zeros(word))
                word = (word << np.uint64(zeros)) << np.uint64(1)
                held -= zeros + 1
                if held < split:
                    position, word, held = _refill(data, position, end, word, held)
                    if held < split:
                        return False
                low = np.uint32((word >> np.uint64(1)) >> np.uint64(63 - split))
                word <<= np.uint64(split)
                held -= split
                value += _difference(np.uint32(np.uint64(many + zeros) << np.uint64(split)) | low)
                out[i] = np.int32(value)
        first = last
    if width == 16:
        for i in range(len(out)):
            out[i] = np.int16(out[i])
    elif width == 8:
        for i in range(len(out)):
            out[i] = np.uint8(out[i])
    return True


@_inlined
def _difference(coded):
    """Signed number that was coded as an unsigned one: 0, -1, 1, -2, ..."""
    half = np.uint32(coded >> np.uint32(1))
    return np.uint32(half ^ np.uint32(np.uint32(0) - np.uint32(coded & np.uint32(1))))


@_compiled
def join_bytes(data, out):
    """Integers whose bytes lie in planes, the highest first (GZIP_2): (2 n or 4 n,) uint8 to (n,) int32.

    Two bytes are a signed number.
    """
    n = len(out)
    if len(data) >= 4 * n:
        a, b, c, d = data[:n], data[n : 2 * n], data[2 * n : 3 * n], data[3 * n : 4 * n]
        for i in range(n):
            out[i] = np.int32(
                np.uint32(a[i]) << np.uint32(24)
                | np.uint32(b[i]) << np.uint32(16)
                | np.uint32(c[i]) << np.uint32(8)
                | np.uint32(d[i])
            )
    elif len(data) >= 2 * n:
        a, b = data[:n], data[n : 2 * n]
        for i in range(n):
            out[i] = np.int32(np.int16(np.uint16(a[i]) << np.uint16(8) | np.uint16(b[i])))


@_compiled
def to_integers(pixels, out):
    """Copy the pixels of a tile, (n,) int32, to their place in the image, out (y, x) int32 or float32."""
    ny, nx = out.shape
    for y in range(ny):
        row, here = pixels[y * nx :], out[y]
        for x in range(nx):
            here[x] = row[x]


@_compiled
def to_floats(pixels, scale, zero, method, row, random, has_blank, blank, out):
    """Quantised pixels of a tile back to floating point, as the FITS standard 4.0, section 10.2, has it.

    Parameters
    ----------
    pixels
        (n,) int32.
    method, row
        Of dither, and number of the tile from 1 on, the file's seed added.
    random
        (RANDOM,) float32, of `dither_table`.
    has_blank, blank
        Integer that stands for NaN, where there is one.
    out
        (y, x) float32, y x = n: place of the tile in the image.
    """
    ny, nx = out.shape
    nan, blank = np.float32(np.nan), np.int32(blank)
    seed = (row - 1) % RANDOM
    at = np.int64(random[seed] * np.float32(500))
    for y in range(ny):
        line, here = pixels[y * nx :], out[y]
        x = 0
        while x < nx:
            # up to where the table of random numbers ends
            count = nx - x if method == NO_DITHER else min(nx - x, RANDOM - at)
            part, place = line[x : x + count], here[x : x + count]
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
            x += count
