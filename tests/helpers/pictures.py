"""Pictures for the web page: files of every kind that it reads, and of every kind that it refuses."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from s2mlp_deploy.schema.array import Array


def pixels(height: int = 41, width: int = 57, channels: int = 3) -> Array:
    """Soft blobs, as photographs have them, which JPEG keeps well."""
    coarse = np.random.default_rng(3).integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), dtype=np.uint8)
    image = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels)


def encoded(image: Image.Image | Array, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    made = image if isinstance(image, Image.Image) else Image.fromarray(image.squeeze())
    made.save(out, format, **options)
    return out.getvalue()


def png(width: int, height: int, depth: int, colour: int, raw: bytes = b"") -> bytes:
    """A PNG file whose lines are ``raw``, filter bytes and all."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


DEEP = (pixels()[:, :, 0].astype(np.uint16) * 257).astype(np.uint16)

REFUSED: dict[str, tuple[bytes, str]] = {
    "text": (b"not an image", "not an image that this browser can read"),
    "empty": (b"", "This file is empty"),
    "cut png": (encoded(pixels(90, 90))[:-2000], "its pixels are"),
    "cut header": (encoded(pixels())[:20], "it has no header"),
    "cut jpeg": (encoded(pixels(), "JPEG")[:100], "damaged or cut off"),
    "16-bit grey": (encoded(Image.fromarray(DEEP)), "pixels of more than 8 bits, which would be clipped"),
    "huge png": (png(12_000, 9_000, 8, 2), "108 megapixels (12000 × 9000), and this page reads up to 89"),
    "cmyk": (encoded(Image.fromarray(pixels()).convert("CMYK"), "JPEG"), "in CMYK"),
    "transparent webp": (
        encoded(Image.fromarray(pixels(channels=4)), "WEBP", lossless=True, exact=True),
        "has transparent parts",
    ),
}


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def interlaced() -> bytes:
    """Adam7, which Pillow reads and does not write."""
    image = pixels(21, 30)
    raw = bytearray()
    for left, top, across, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        for row in image[top::down, left::across]:
            raw += b"\0" + row.tobytes()
    content = bytearray(png(30, 21, 8, 2, bytes(raw)))
    content[28] = 1
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


COLOUR = Image.fromarray(pixels())
READ: dict[str, bytes] = {
    "colour": encoded(COLOUR),
    "grey": encoded(COLOUR.convert("L")),
    "black and white": encoded(COLOUR.convert("1")),
    "palette": encoded(COLOUR.quantize(64)),
    "palette of 5": encoded(COLOUR.quantize(5), bits=4),
    "transparent palette": encoded(COLOUR.quantize(64), transparency=bytes(range(64))),
    "transparent": encoded(pixels(channels=4)),
    "transparent grey": encoded(Image.fromarray(pixels(channels=4)).convert("LA")),
    "noise": encoded(np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8), optimize=True),
    "interlaced": interlaced(),
    "16-bit colour": png(
        28, 20, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels(20, 28).astype(np.uint16) * 257)
    ),
    **{f"turned {i}": encoded(COLOUR, exif=exif(i)) for i in range(1, 9)},
    "jpeg": encoded(COLOUR, "JPEG"),
    "progressive jpeg": encoded(COLOUR, "JPEG", progressive=True, quality=95),
    "grey jpeg": encoded(COLOUR.convert("L"), "JPEG"),
    **{f"turned jpeg {i}": encoded(COLOUR, "JPEG", exif=exif(i)) for i in (3, 6)},
    "webp": encoded(COLOUR, "WEBP", lossless=True),
    "gif": encoded(COLOUR.quantize(64), "GIF"),
    "bmp": encoded(COLOUR, "BMP"),
    "taller than a strip": encoded(Image.fromarray(pixels(600, 9)), "BMP"),
}
