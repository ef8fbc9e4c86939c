"""Files of JAX: plain arrays alone, in any memory order, and bfloat16 that numpy does not know."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.errors import ModelFileError
from src.weights.read import read_tensors
from tests.weights.files import bfloat16, npz_bytes, write_file

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def with_header(header: str, content: bytes, version: int = 1) -> bytes:
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + content


def archived(content: bytes, name: str = "weight.npy", compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile("net.npz", "w", compression) as archive:
        archive.writestr(name, content)
    return Path("net.npz")


def test_names_with_slashes_stay():
    tensors = {"Transformer/encoderblock_0/LayerNorm_0/scale": VALUES, "params/img/head/kernel": VALUES + 1}
    ours = read_tensors(write_file("net.npz", npz_bytes(tensors)))
    assert list(ours) == list(tensors)
    assert all(np.array_equal(ours[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "array",
    [np.asfortranarray(VALUES), VALUES.T, VALUES.astype(">f4"), VALUES.astype(">i8"), np.zeros((0, 3)), VALUES[0, 1]],
)
def test_orders_of_memory_and_bytes(array):
    (ours,) = read_tensors(archived(npy(array))).values()
    assert np.array_equal(ours, array)
    assert ours.shape == array.shape
    assert ours.dtype == array.dtype.newbyteorder("=")
    assert ours.dtype.isnative
    assert ours.flags.c_contiguous


def test_compressed():
    np.savez_compressed("net.npz", weight=VALUES)
    assert np.array_equal(read_tensors(Path("net.npz"))["weight"], VALUES)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("descr", ["|V2", "<V2", "bfloat16"])
def test_bfloat16_becomes_float32(descr, version):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 3), }}"
    path = archived(with_header(header, bfloat16(VALUES).tobytes(), version))
    (ours,) = read_tensors(path).values()
    assert ours.dtype == np.float32
    assert np.array_equal(ours, VALUES)


@pytest.mark.parametrize(
    "array",
    [
        np.array([{"a": 1}, print], object),
        np.zeros(2, [("a", "f4")]),
        np.zeros(2, "V3"),
        np.array(["text"]),
        np.zeros(2, np.complex64),
        np.zeros(2, "M8[s]"),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ModelFileError, match=r"array weight.npy is not of plain numbers and is not loaded. Received: "):
        read_tensors(archived(npy(array)))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (6.0,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (('6',),), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 6, }",
        "{'descr': '<f4', 'shape': (6,), }",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': (6,{'1,' * 40}), }}",
        "__import__('os').system('touch executed')",
        "[" * 1900,
        "-" * 1900 + "1",
        "x" * 3000,
    ],
)
def test_headers_that_do_not_fit(header):
    with pytest.raises(ModelFileError, match=r"^net.npz: is damaged"):
        read_tensors(archived(with_header(header, VALUES.tobytes())))
    assert not Path("executed").exists()


def test_zeros_beside_huge_dimensions():
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {2**62}), }}"
    with pytest.raises(ModelFileError, match=r"is damaged: tensor weight.npy has a shape that no array has"):
        read_tensors(archived(with_header(header, b"")))


@pytest.mark.parametrize("content", [b"", b"x", b"\x93NUMPY", b"\x93NUMPY\x01\x00"])
def test_members_that_are_no_arrays(content):
    with pytest.raises(ModelFileError, match=r"^net.npz: is damaged"):
        read_tensors(archived(content))
    with pytest.raises(ModelFileError, match=r"holds something else than arrays. Received: notes.txt"):
        read_tensors(archived(content, "notes.txt"))


def test_a_bomb_is_not_unpacked():
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({100 << 20},), }}"
    path = archived(with_header(header, bytes(100 << 20)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelFileError, match=r"would fill \d+ bytes of memory, out of proportion to its size"):
        read_tensors(path)


def test_methods_that_unpack_without_a_limit_are_refused():
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(ModelFileError, match=r"weight.npy is compressed by an unknown method"):
            read_tensors(archived(npy(VALUES), compression=method))


def test_a_member_that_is_longer_than_it_claims():
    # The two places where a zip notes the unpacked size.
    path = archived(npy(np.zeros(1 << 20)), compression=zipfile.ZIP_DEFLATED)
    size = (128 + (8 << 20)).to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(size) == 2
    with pytest.raises(ModelFileError, match=r"^net.npz: is damaged"):
        read_tensors(write_file("net.npz", content.replace(size, (128).to_bytes(4, "little"))))
