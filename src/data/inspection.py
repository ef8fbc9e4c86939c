"""What one image file is, found out in processes that may die or hang over it."""

from __future__ import annotations

import codecs
import hashlib
import multiprocessing
import os
import stat
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures import TimeoutError as NoAnswerError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from src.data.image_source import Source
from src.data.transforms import MAX_PIXELS, read_image
from src.data.workers import follow_parent
from src.errors import DataError
from src.files import sha256

_CHUNK = 32
# Seconds without any answer after which a process is taken for hung.
_PATIENCE = 120.0
# Seconds that a process may take to start.
_START = 120.0
_DIGEST_BYTES = 16
DAMAGED = "unreadable or cut off"
EMPTY = "empty files"
TOO_LARGE = "images of too many pixels"
OTHER_TYPE = "files of another type than their suffix says"
NO_FILE = "names that lead to no regular file"
LOST = "files that end or hang the decoder"
NOTE_TYPE = "readable, but of another type than the suffix says"
NOTE_16_BIT = "images of 16 bit, whose values above 255 are read as 255"
_TYPES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
# Pillow's names of what are variants of a type: several JPEG in one file, a BMP without its file header.
_VARIANTS = {"MPO": "JPEG", "DIB": "BMP"}
_MODES = {
    **dict.fromkeys(("1", "L", "LA", "La"), "grey"),
    **dict.fromkeys(("P", "PA"), "palette"),
    **dict.fromkeys(("RGBA", "RGBa"), "RGBA"),
    **dict.fromkeys(("I", "F", "I;16", "I;16B", "I;16L", "I;16N"), "16 bit"),
}
_BEGINNINGS = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftyp", "video (MP4)"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"version https://git-lfs", "Git LFS pointer, not its file"),
    (0, b"<!doctype html", "HTML"),
    (0, b"<html", "HTML"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
)


class Inspection(NamedTuple):
    """One image.

    Attributes:
        fault: what is wrong with it, nothing where it can be read.
        detail: more about the fault.
        digest: 16 bytes of the SHA-256 of its content.
        size: width and height in pixels.
        mode: RGB, grey, palette, RGBA, CMYK, 16 bit, or another of Pillow's.
        notes: kind and detail of what is odd, but no fault.
    """

    fault: str = ""
    detail: str = ""
    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    notes: tuple[tuple[str, str], ...] = ()


def inspect_file(name: str) -> Inspection:
    """Decode a file as training does."""
    path = Path(name)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # Reading a pipe would wait for ever.
            return Inspection(NO_FILE, "a pipe" if stat.S_ISFIFO(status.st_mode) else "a socket or device")
        if status.st_size == 0:
            return Inspection(EMPTY)
        digest = bytes.fromhex(sha256(path))[:_DIGEST_BYTES]
        with path.open("rb") as stream:
            head = stream.read(256)
    except OSError as error:
        is_link = path.is_symlink()
        return Inspection(NO_FILE if is_link else DAMAGED, f"{'link: ' if is_link else ''}{error.strerror.lower()}")
    wanted = _TYPES.get(path.suffix.lower(), "")
    try:
        found, mode, size = _read_header(path)
    except Image.DecompressionBombError as error:
        return Inspection(TOO_LARGE, str(error))
    try:
        read_image(path)
    except DataError as error:
        if size[0] * size[1] > MAX_PIXELS:
            return Inspection(TOO_LARGE, f"{size[0]} x {size[1]}")
        kind = found or _type_of(head)
        reason = error.lines[0].removeprefix(" ".join(f"{path}: ".split("\n")))
        return Inspection(OTHER_TYPE, kind) if kind not in ("", wanted) else Inspection(DAMAGED, reason)
    notes = []
    if found != wanted:
        notes.append((NOTE_TYPE, found))
    if _MODES.get(mode) == "16 bit":
        notes.append((NOTE_16_BIT, mode))
    return Inspection("", "", digest, size, _MODES.get(mode, mode), tuple(notes))


def inspect_packed(images: Source) -> Iterator[tuple[int, Inspection]]:
    """Index and inspection of images that are no files of their own."""
    for index in range(len(images)):
        try:
            image = images.read(index)
        except DataError as error:
            yield index, Inspection(DAMAGED, error.lines[0])
            continue
        digest = hashlib.sha256(image.tobytes()).digest()[:_DIGEST_BYTES]
        yield index, Inspection("", "", digest, image.size, image.mode)


def inspect_files(
    names: Sequence[str], workers: int, inspect: Callable[[str], Inspection] = inspect_file
) -> Iterator[tuple[int, Inspection]]:
    """Index and inspection of every file, in any order.

    Args:
        names: paths of the files.
        workers: processes; 0 for this one, which then dies or hangs with its decoder.
        inspect: what is done with a file; can be pickled.

    Raises:
        DataError: processes cannot be started.
    """
    if not workers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from ((index, inspect(names[index])) for index in range(len(names)))
        return
    waiting = deque(range(first, min(first + _CHUNK, len(names))) for first in range(0, len(names), _CHUNK))
    while waiting:
        suspects, _ = yield from _until_lost(inspect, names, waiting, workers, 2 * workers)
        # One of them is it: alone, it gives itself away.
        singles = deque(range(index, index + 1) for index in suspects)
        while singles:
            lost, reason = yield from _until_lost(inspect, names, singles, 1, 1)
            yield from ((index, Inspection(LOST, reason)) for index in lost)


def _until_lost(
    inspect: Callable[[str], Inspection], names: Sequence[str], waiting: deque[range], workers: int, most: int
) -> Generator[tuple[int, Inspection], None, tuple[list[int], str]]:
    """Work off what is waiting; ends early when a process dies or hangs, with the files that got no answer, and why."""
    pending: dict[Future, range] = {}
    reason = ""
    others = set(multiprocessing.active_children())
    # Not fork: a child of a process with threads may hang by itself.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        _await_start(pool)
        while (waiting or pending) and not reason:
            while waiting and len(pending) < most:
                chunk = waiting[0]
                pending[pool.submit(_inspect_chunk, inspect, [names[index] for index in chunk])] = chunk
                waiting.popleft()
            done, _ = wait(pending, _PATIENCE, FIRST_COMPLETED)
            reason = "" if done else f"no answer for {_PATIENCE:.0f} s"
            for future in done:
                found = future.result()
                yield from zip(pending.pop(future), found, strict=True)
    except BrokenProcessPool:
        reason = "its process was killed, or ran out of memory"
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        pool.shutdown(cancel_futures=True)
    return [index for chunk in pending.values() for index in chunk], reason


def _await_start(pool: ProcessPoolExecutor) -> None:
    # A machine that is slow to start processes says nothing about files.
    try:
        pool.submit(os.getpid).result(_START)
    except (BrokenProcessPool, NoAnswerError):
        rule = "processes cannot be started, 0 checks without them"
        raise DataError("num_parallel_workers", rule) from None


def _begin() -> None:
    follow_parent()
    warnings.simplefilter("ignore")


def _inspect_chunk(inspect: Callable[[str], Inspection], names: list[str]) -> list[Inspection]:
    return [inspect(name) for name in names]


def _read_header(path: Path) -> tuple[str, str, tuple[int, int]]:
    """Type, mode and size; no type where it is none that is known."""
    try:
        with Image.open(path) as image:
            return _VARIANTS.get(image.format, image.format or ""), image.mode, image.size
    except Image.DecompressionBombError:
        raise
    except Exception:  # whatever it is, the reader will say it
        return "", "", (0, 0)


def _type_of(head: bytes) -> str:
    """Type of a file from its first bytes."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, beginning, name in _BEGINNINGS:
        if head.startswith(beginning, start) or (beginning[:1] == b"<" and text.startswith(beginning)):
            return name
    try:
        # The last letter may be cut.
        words = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return ""
    return "text" if all(letter.isprintable() or letter.isspace() for letter in words) else ""
