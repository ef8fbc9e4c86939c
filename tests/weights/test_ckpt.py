"""Checkpoints of MindSpore: slices, checksums, and lengths that its own reader would not notice."""

from io import BytesIO
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from google.protobuf.internal.encoder import _VarintBytes
from hypothesis import given
from hypothesis import strategies as st
from mindspore.train.checkpoint_pb2 import Checkpoint

from src.errors import ModelFileError
from src.weights.ckpt import _entries, _varint
from src.weights.read import read_tensors
from src.weights.write import write_ckpt
from tests.weights.files import bfloat16, ckpt_bytes, write_file
from tests.weights.test_read import TENSORS, assert_equal

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_checkpoints_of_mindspore_itself():
    named = [{"name": name, "data": ms.Tensor(array)} for name, array in TENSORS.items()]
    ms.save_checkpoint(named, "net.ckpt")
    assert_equal(read_tensors(Path("net.ckpt")))


def test_mindspore_reads_what_is_written_here():
    floats = {name: array for name, array in TENSORS.items() if array.dtype == np.float32}
    write_ckpt(Path("net.ckpt"), floats)
    assert_equal({name: tensor.asnumpy() for name, tensor in ms.load_checkpoint("net.ckpt").items()}, floats)
    assert_equal(read_tensors(Path("net.ckpt")), floats)


def test_bfloat16_of_mindspore_becomes_float32():
    named = [{"name": "weight", "data": ms.Tensor(VALUES).astype(ms.bfloat16)}]
    ms.save_checkpoint(named, "net.ckpt")
    assert_equal(read_tensors(Path("net.ckpt")), {"weight": VALUES})
    assert_equal(read_tensors(write_file("ours.ckpt", ckpt_bytes({"weight": bfloat16(VALUES)}))), {"weight": VALUES})


def test_what_mindspore_notes_beside_the_weights():
    named = [{"name": "weight", "data": ms.Tensor(VALUES)}]
    ms.save_checkpoint(named, "net.ckpt", append_dict={"note": "text", "epoch": 3})
    tensors = read_tensors(Path("net.ckpt"))
    assert tensors.keys() == {"weight", "epoch"}
    assert tensors["epoch"] == 3


def test_large_tensors_in_slices():
    assert_equal(read_tensors(write_file("net.ckpt", ckpt_bytes(TENSORS, slices=3))))


# ---------------------------------------------------------------------------------------------------------------------
# Damage


def test_the_checksum_of_mindspore():
    named = [{"name": name, "data": ms.Tensor(array)} for name, array in TENSORS.items()]
    ms.save_checkpoint(named, "net.ckpt", crc_check=True)
    content = Path("net.ckpt").read_bytes()
    assert content[-17:-10] == b"crc_num"
    assert_equal(read_tensors(Path("net.ckpt")))
    for place in range(0, len(content) - 17, 13):
        changed = bytearray(content)
        changed[place] ^= 4
        with pytest.raises(ModelFileError, match=r"^changed.ckpt: is damaged: its contents have not the checksum \d+"):
            read_tensors(write_file("changed.ckpt", bytes(changed)))


def test_a_checksum_alone():
    with pytest.raises(ModelFileError, match=r"^net.ckpt: holds no tensors$"):
        read_tensors(write_file("net.ckpt", b"crc_num" + bytes(10)))


def entry(name: str, dims: list[int], kind: str, content: bytes) -> Checkpoint.Value:
    value = Checkpoint.Value()
    value.tag = name
    value.tensor.dims.extend(dims)
    value.tensor.tensor_type = kind
    value.tensor.tensor_content = content
    return value


def ckpt(*entries: Checkpoint.Value) -> Path:
    return write_file("net.ckpt", Checkpoint(value=entries).SerializeToString())


@given(st.lists(st.integers(-(2**40), 2**40), max_size=4), st.binary(max_size=64))
def test_dims_that_do_not_fit_the_data(dims, content):
    path = ckpt(entry("weight", dims, "Float32", content))
    shape = () if dims == [0] else tuple(dims)
    fits = min(shape, default=1) >= 0 and int(np.prod(shape, dtype=object)) * 4 == len(content)
    # numpy takes no dimensions beside a zero whose product is too large.
    if fits and int(np.prod([n for n in shape if n], dtype=object)) < 2**60:
        assert read_tensors(path)["weight"].shape == shape
    else:
        with pytest.raises(ModelFileError, match=r"^net.ckpt: is damaged: tensor weight "):
            read_tensors(path)


@pytest.mark.parametrize("dims", [[1] * 40, [0, 2**62, 2**62], [2**62] * 3])
def test_shapes_that_no_array_has(dims):
    with pytest.raises(ModelFileError, match=r"^net.ckpt: is damaged: tensor weight "):
        read_tensors(ckpt(entry("weight", dims, "Float32", bytes(4 if 0 not in dims else 0))))


def test_unknown_type_of_a_checkpoint_tensor():
    with pytest.raises(ModelFileError, match=r"tensor weight has an unknown type. Received: Float31. Known: Float32, "):
        read_tensors(ckpt(entry("weight", [2], "Float31", bytes(8))))


def test_slices_that_differ():
    first = entry("weight", [4], "Float32", bytes(8))
    for second in (entry("weight", [4], "Int32", bytes(8)), entry("weight", [2, 2], "Float32", bytes(8))):
        with pytest.raises(ModelFileError, match=r"slices of tensor weight differ in type or shape"):
            read_tensors(ckpt(first, second))


def test_maps_and_incomplete_entries():
    table = Checkpoint.Value()
    table.tag = "table"
    table.maptensor.tensor.append(entry("", [2], "Float32", bytes(8)).tensor)
    with pytest.raises(ModelFileError, match=r"holds something else than a tensor and is not loaded. Received: table"):
        read_tensors(ckpt(table))
    nameless = entry("weight", [2], "Float32", bytes(8))
    nameless.ClearField("tag")
    content = nameless.SerializePartialToString()
    with pytest.raises(ModelFileError, match=r"is damaged: a tensor lacks its name, type or values"):
        read_tensors(write_file("net.ckpt", b"\n" + bytes([len(content)]) + content))


# ---------------------------------------------------------------------------------------------------------------------
# Entry by entry, since protobuf takes no more than 2 GB at once


@given(st.integers(0, 2**63))
def test_numbers_of_any_length(number):
    stream = BytesIO(_VarintBytes(number) + b"rest")
    assert _varint(stream) == number
    assert stream.read() == b"rest"


@pytest.mark.parametrize("length", [2**31, 2**40, 2**63])
def test_an_entry_that_claims_more_than_the_file_holds(length):
    content = ckpt_bytes({"weight": VALUES})
    with pytest.raises(ModelFileError, match=rf"is damaged: cut off within a tensor of {length} bytes"):
        read_tensors(write_file("net.ckpt", content + b"\n" + _VarintBytes(length) + bytes(100)))


@pytest.mark.parametrize("tail", [b"\n", b"\x12\x00", b"\n" + b"\xff" * 20, b"\n\x02\x08", b"\x00"])
def test_something_else_after_the_tensors(tail):
    with pytest.raises(ModelFileError, match=r"^net.ckpt: is damaged"):
        read_tensors(write_file("net.ckpt", ckpt_bytes({"weight": VALUES}) + tail))


def test_entries_are_parsed_one_by_one():
    entries = _entries(write_file("net.ckpt", ckpt_bytes({"weight": VALUES}) + b"\nwhat follows is not looked at yet"))
    name, tensor = next(entries)
    assert (name, list(tensor.dims), tensor.tensor_content) == ("weight", [2, 3], VALUES.tobytes())
    with pytest.raises(ModelFileError, match="is damaged"):
        next(entries)
