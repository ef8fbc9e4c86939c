"""Files that are whole or not there at all: temporary name, fsync, rename; files that grow; locks; content hashes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.errors import ConfigError

_TEMPORARY = ".partial-"


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that takes its place when the block ends well, and vanishes when not.

    The suffix is kept, since writers look at it. What stood at ``target`` is untouched until the rename.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex[:12]}-{target.name}")
    try:
        yield temporary
        # MindSpore leaves its files read-only, for the owner alone.
        temporary.chmod(0o644)
        _sync(temporary)
        os.replace(temporary, target)
        _sync(target.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write readable JSON atomically."""
    write_text(target, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


class AppendedFile:
    """A file that grows by whole pieces; made where it is missing.

    Nothing is held back in this process: what was appended outlives its kill, and after `sync` a loss of power too.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab", buffering=0)

    def append(self, piece: bytes) -> None:
        """Write a piece at the end.

        Raises:
            OSError: with the file's name; the file is as it was before, as far as the system allows.
        """
        with self._naming_the_file():
            length = os.fstat(self._stream.fileno()).st_size
            rest = memoryview(piece)
            try:
                # On a disk that is getting full the system takes a part, and refuses the next.
                while rest:
                    rest = rest[self._stream.write(rest) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._stream.truncate(length)
                raise

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        with self._naming_the_file():
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Let the file go; nothing is left to write."""
        self._stream.close()

    @contextlib.contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None


def append_under_header(target: Path, header: str, line: str) -> None:
    """Add a line to a text file that begins with a header, made where it is missing; it is on the disk on return.

    Processes that do so at once take turns.

    Args:
        target: the file.
        header: its first line, with its end.
        line: what to add, with its end.

    Raises:
        ConfigError: the file begins otherwise.
    """
    file = AppendedFile(target)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        begin, size = os.pread(descriptor, len(header.encode()), 0), os.fstat(descriptor).st_size
        if size and begin != header.encode():
            raise ConfigError(target, "has other columns than this version writes, choose another file")
        # A process that was killed may have left a part of a line.
        is_whole = not size or os.pread(descriptor, 1, size - 1) == b"\n"
        file.append(f"{header * (not size)}{chr(10) * (not is_whole)}{line}".encode("utf-8", "surrogateescape"))
        file.sync()
        _sync(target.parent)
    finally:
        os.close(descriptor)
        file.close()


def sha256(path: Path) -> str:
    """Content hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed runs left half-written. Call it while holding the folder's lock."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path, key: str = "output_dir") -> Iterator[None]:
    """Hold a folder for this process; the lock goes with the process, however it ends.

    Args:
        folder: made where it is missing.
        key: the flag that names it.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(folder, f"another run is using this folder, choose another --{key}") from None
        yield
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
