"""Zip archives, with every length checked before memory is taken."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from src.errors import ModelFileError
from src.weights.tensor_bytes import require_room

# Other methods unpack a block without a limit.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, open for reading.

    Raises:
        ModelFileError: its members together are out of proportion to the file.
    """
    with zipfile.ZipFile(path) as archive:
        require_room(path, sum(member.file_size for member in archive.infolist()))
        yield archive


def read_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """One member's contents, whose checksum is right.

    Raises:
        ModelFileError: no such member, or one that is damaged or packed by another method.
    """
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise ModelFileError(path, "is damaged: lacks a part", name) from None
    if member.compress_type not in _METHODS:
        raise ModelFileError(path, f"{name} is compressed by an unknown method", member.compress_type)
    # Asked for without a length, the archive would unpack more than the length that it claims.
    with archive.open(member) as stream:
        content = stream.read(member.file_size)
    if len(content) != member.file_size:
        raise ModelFileError(path, f"is damaged: {name} needs {member.file_size} bytes", len(content))
    return content
