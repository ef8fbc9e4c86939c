"""Files of safetensors: types that numpy lacks, and headers that claim what is not there."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from src.errors import ModelFileError
from src.weights.read import read_tensors
from tests.weights.files import bfloat16, write_file

VALUES = np.array([[1.5, -2.25], [0.0, 3e38]], np.float32)


def with_header(header: object, content: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_bfloat16_becomes_float32():
    halves = bfloat16(VALUES)
    header = {"weight": entry("BF16", [2, 2], 0, 8), "scalar": entry("BF16", [], 8, 10)}
    tensors = read_tensors(write_file("net.safetensors", with_header(header, halves.tobytes() + b"\x80\x3f")))
    expected = (halves.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(tensors["weight"], expected)
    assert np.array_equal(tensors["weight"][0], VALUES[0])
    assert tensors["scalar"] == np.float32(1)
    assert tensors["scalar"].shape == ()
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("dtype", [*("f8", "f4", "f2"), *("i8", "i4", "i2", "i1"), *("u8", "u4", "u2", "u1"), "bool"])
def test_types_stay_as_they_are(dtype):
    array = np.array([[0, 1], [1, 0]], dtype)
    (ours,) = read_tensors(write_file("net.safetensors", save({"weight": array}))).values()
    assert ours.dtype == dtype
    assert np.array_equal(ours, array)


@pytest.mark.parametrize(("dtype", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("C64", 8)])
def test_other_types_are_refused_by_name(dtype, size):
    content = with_header({"weight": entry(dtype, [4], 0, 4 * size)}, bytes(4 * size))
    with pytest.raises(ModelFileError, match=rf"tensor weight has a type that is not read. Received: {dtype}. Known: "):
        read_tensors(write_file("net.safetensors", content))


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry("F32", [4], 0, 16), "b": entry("F32", [4], 8, 24)},
        {"a": entry("F32", [4], 0, 16)},
        {"a": entry("F32", [6], 0, 23)},
        {"a": entry("F32", [8], 0, 32)},
        {"a": entry("F32", [2**62, 4], 0, 24)},
        {"a": entry("F32", [-6], 0, 24)},
        {"a": entry("F33", [6], 0, 24)},
        {"a": entry("F32", [1] * 40, 0, 4), "b": entry("F32", [5], 4, 24)},
        {"a": {"dtype": "F32"}},
        [1, 2],
        "text",
    ],
)
def test_headers_that_do_not_fit(header):
    with pytest.raises(ModelFileError, match=r"^net.safetensors: is damaged"):
        read_tensors(write_file("net.safetensors", with_header(header, bytes(24))))


@pytest.mark.parametrize("length", [0, 1, 7, 10**6, 2**63, 2**64 - 1])
def test_lengths_of_headers(length):
    content = save({"weight": VALUES})
    with pytest.raises(ModelFileError, match=r"^net.safetensors: is damaged"):
        read_tensors(write_file("net.safetensors", length.to_bytes(8, "little") + content[8:]))


def test_deep_headers():
    text = b"[" * 100_000
    with pytest.raises(ModelFileError, match=r"^net.safetensors: is damaged"):
        read_tensors(write_file("net.safetensors", len(text).to_bytes(8, "little") + text))
