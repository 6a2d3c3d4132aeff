"""Images in rows and columns as one PNG file, with the standard library and NumPy alone."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def grid(images: Array, columns: int, scale: int = 4, gap: int = 2) -> Array:
    """Images [n, h, w] of 0 to 1 (ink) as one of u8, dark on white, each pixel `scale` wide."""
    n, h, w = images.shape
    rows = -(-n // columns)
    large = np.kron(images, np.ones((scale, scale)))
    sheet = np.zeros((rows * (h * scale + gap) + gap, columns * (w * scale + gap) + gap))
    for k, image in enumerate(large):
        top = gap + (k // columns) * (h * scale + gap)
        left = gap + (k % columns) * (w * scale + gap)
        sheet[top : top + h * scale, left : left + w * scale] = image
    return np.round(255 * (1 - sheet.clip(0, 1))).astype(np.uint8)


def write_png(path: str | Path, pixels: Array) -> None:
    """Grey pixels u8 [height, width] as a PNG file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))

    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    Path(path).write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9))
        + chunk(b"IEND", b""))
