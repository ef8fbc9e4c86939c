"""Files that are no images, though their names say so, in every way that is known."""

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from src.data import inspection


def encoded(kind: str, side: int = 48, **options: object) -> bytes:
    noise = np.random.default_rng(3).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind, **options)
    return stream.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A header that promises so many pixels, and next to nothing behind it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def bmp_of(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


JPEG, PNG, WEBP, BMP, GIF = (encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF"))
CUTS = {
    f"cut_{n:02d}.{suffix}": content[: int(len(content) * share)]
    for suffix, content in (("jpg", JPEG), ("png", PNG), ("webp", WEBP), ("bmp", BMP))
    for n, share in enumerate((0.004, 0.02, 0.1, 0.3, 0.5, 0.8, 0.95))
}
HEAD_OF_TIFF = b"II*\0\xff\xff\xff\x7f"
BAD_FILES = {
    inspection.DAMAGED: {
        **CUTS,
        "noise.jpg": bytes(range(128, 256)) * 4,
        "zeros.jpg": bytes(1000),
        "crc.png": PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:],
        "no_pixels.png": png_of(0, 5),
        "much.png": png_of(13_000, 13_000),
        "head.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    },
    inspection.EMPTY: {"nothing.jpg": b"", "nothing.png": b""},
    inspection.TOO_LARGE: {
        "bomb.png": png_of(60_000, 60_000),
        "wide.png": png_of(2**31 - 1, 9),
        "bomb.bmp": bmp_of(50_000, 40_000),
    },
    inspection.OTHER_TYPE: {
        "page.jpg": b"\n<!DOCTYPE html><html><body>404</body></html>",
        "text.png": "Größe, mit Umlauten\n".encode() * 40,
        "lfs.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "paper.jpg": b"%PDF-1.7\n\xff\xfe",
        "archive.png": b"PK\x03\x04\xff\xfe",
        "half_gif.jpg": GIF[:400],
        "tiff.bmp": HEAD_OF_TIFF,
        "phone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0",
        "film.png": b"\0\0\0\x18ftypisom\0\0\0\0",
        "drawing.webp": b'<?xml version="1.0"?><svg/>',
    },
}


def write_bad_files(folder: Path) -> dict[str, str]:
    """Name -> kind of finding."""
    kinds = {}
    for kind, files in BAD_FILES.items():
        for name, content in files.items():
            (folder / name).write_bytes(content)
            kinds[name] = kind
    (folder / "dangling.jpg").symlink_to("absent")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "device.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as one:
        # The length of a socket's path is limited.
        before = Path.cwd()
        os.chdir(folder)
        one.bind("socket.jpg")
        os.chdir(before)
    kinds |= dict.fromkeys(("dangling.jpg", "loop.jpg", "device.png", "pipe.png", "socket.jpg"), inspection.NO_FILE)
    if os.getuid():
        (folder / "secret.png").write_bytes(PNG)
        (folder / "secret.png").chmod(0)
        kinds["secret.png"] = inspection.DAMAGED
    return kinds
