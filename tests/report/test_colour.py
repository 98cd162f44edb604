"""Colours rise evenly, and pictures say what the array says."""

import struct
import zlib

import numpy as np
import pytest

from skysub.report.colour import diverging, mask_palette, sequential
from skysub.report.png import indexed, png


def luminance(palette):
    """Relative luminance of sRGB colours (n, 3), 0 to 1 (IEC 61966-2-1)."""
    encoded = palette / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def test_sequential_is_cividis():
    palette = sequential()
    assert palette.shape == (255, 3)
    assert palette[0].tolist() == [0x00, 0x22, 0x4E]
    assert palette[-1].tolist() == [0xFE, 0xE8, 0x38]
    # its middle as matplotlib has it, (0.488, 0.485, 0.471)
    np.testing.assert_allclose(palette[127], [124, 123, 120], atol=2)
    assert (np.diff(luminance(palette)[::3]) > 0).all()


def test_diverging_is_vik():
    palette = diverging()
    assert palette[0].tolist() == [0x00, 0x12, 0x61]
    assert palette[-1].tolist() == [0x59, 0x00, 0x08]
    light = luminance(palette)
    # nothing is left to either side where there is nothing
    assert np.ptp(palette[127].astype(int)) <= 12
    assert abs(int(light.argmax()) - 127) <= 3
    assert (np.diff(light[:121:4]) > 0).all()
    assert (np.diff(light[134::4]) < 0).all()
    assert palette[20][2] > palette[20][0]
    assert palette[234][0] > palette[234][2]


def test_mask_palette_shows_small_shares():
    light = mask_palette().astype(int)
    # one fifteenth of a cell is seen
    assert np.abs(light[1] - light[0]).max() > 30
    assert np.abs(light[16] - light[0]).max() > 15


def decoded(content):
    """Places and transparency of an indexed PNG, by its chunks."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind = content[at + 4 : at + 8]
        body = content[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", content[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colour) == (8, 3)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert (rows[:, 0] == 0).all()
    return rows[:, 1:], chunks


def test_row_0_is_at_the_bottom_and_nan_transparent():
    values = np.array([[0.0, 1.0, 2.0], [np.nan, 9.0, -9.0]])
    rows, chunks = decoded(png(indexed(values, 0.0, 2.0), sequential()))
    assert rows.tolist() == [[255, 254, 0], [0, 127, 254]]
    assert chunks[b"tRNS"] == b"\xff" * 255 + b"\0"
    assert chunks[b"PLTE"][:3] == sequential()[0].tobytes()


def test_full_palettes_have_nothing_transparent():
    rows, chunks = decoded(png(np.array([[255]], np.uint8), mask_palette()))
    assert rows.tolist() == [[255]]
    assert b"tRNS" not in chunks


@pytest.mark.parametrize("value", [3.0, np.float32(-2e30)])
def test_a_scale_without_width(value):
    assert indexed(np.array([[value]]), 3.0, 3.0).tolist() in ([[0]], [[254]])
