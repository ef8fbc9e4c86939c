"""Files of torch, read without it: every way to store a tensor, and no way to run or blow up anything."""

import io
import pickle
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest

from src.errors import ModelFileError
from src.weights.read import read_tensors
from tests.weights.files import (
    VALUES,
    TorchTensor,
    bfloat16,
    call,
    legacy_torch_bytes,
    named,
    number,
    pickled,
    reference,
    torch_bytes,
    torch_zip,
    write_file,
)
from tests.weights.test_read import TENSORS, assert_equal

# ---------------------------------------------------------------------------------------------------------------------
# Where the weights are


@pytest.mark.parametrize("key", ["model", "state_dict", "model_ema", "state_dict_ema"])
def test_wrappers(write, key):
    tree = {"epoch": 7, "arch": "vit", key: OrderedDict(TENSORS), "optimizer": {"state": {0: VALUES}, "lr": 0.1}}
    assert_equal(read_tensors(write(tree)))


@pytest.mark.parametrize("plain", ["model", "state_dict"])
@pytest.mark.parametrize("averaged", ["model_ema", "state_dict_ema"])
def test_plain_weights_come_before_averaged_ones(write, plain, averaged):
    tree = {averaged: {name: array + 1 for name, array in TENSORS.items()}, plain: TENSORS}
    assert_equal(read_tensors(write(tree)))


def test_wrappers_in_wrappers_and_names_that_are_none(write):
    assert_equal(read_tensors(write({"model": {"state_dict": TENSORS}})))
    # The model's name beside its weights.
    assert_equal(read_tensors(write({"model": "vit_tiny", "state_dict": TENSORS})))
    assert_equal(read_tensors(write({"model": VALUES})), {"model": VALUES})


def test_only_tensors_of_the_dictionary_itself_are_taken(write):
    tree = {
        **TENSORS,
        "text": "x",
        "number": 3,
        "flag": True,
        "nothing": None,
        "list": [VALUES],
        "inner": {"a": VALUES},
    }
    assert_equal(read_tensors(write(tree)))


@pytest.mark.parametrize(("tree", "kind"), [([1, 2], "list"), (3, "int"), ("text", "str"), (None, "NoneType")])
def test_something_else_than_a_dictionary(write, tree, kind):
    with pytest.raises(ModelFileError, match=f"must hold a dictionary of tensors. Received: {kind}"):
        read_tensors(write(tree))


def test_a_dictionary_that_holds_itself(write):
    tree = {"head.weight": VALUES}
    tree["model"] = tree
    assert_equal(read_tensors(write(tree)), {"head.weight": VALUES})


# ---------------------------------------------------------------------------------------------------------------------
# How a tensor is stored


def test_strides(write):
    transposed = {"weight": VALUES.T}
    assert not transposed["weight"].flags.c_contiguous
    ours = read_tensors(write(transposed))
    assert_equal(ours, transposed)
    assert ours["weight"].flags.c_contiguous


def test_views_that_share_a_storage(write):
    flat = VALUES.ravel()
    tree = {
        "all": TorchTensor(flat, 0, (3, 4), (4, 1)),
        "tail": TorchTensor(flat, 8, (4,), (1,)),
        "every_second": TorchTensor(flat, 1, (2, 3), (6, 2)),
        "one": TorchTensor(flat, 11, (), ()),
        "repeated": TorchTensor(flat, 2, (2, 5), (1, 0)),
        "none": TorchTensor(flat, 12, (0, 7), (7, 1)),
    }
    ours = read_tensors(write(tree))
    expected = {
        "all": VALUES,
        "tail": flat[8:],
        "every_second": flat[[1, 3, 5, 7, 9, 11]].reshape(2, 3),
        "one": flat[11:].reshape(()),
        "repeated": np.repeat(flat[2:4], 5).reshape(2, 5),
        "none": np.zeros((0, 7), np.float32),
    }
    assert_equal(ours, expected)
    ours["all"] += 1
    assert_equal({**ours, "all": VALUES}, expected)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "bool"])
def test_types_stay_as_they_are(write, dtype):
    tree = {"weight": np.array([[0, 1], [1, 0]], dtype), "scalar": np.array(1, dtype)}
    assert_equal(read_tensors(write(tree)), tree)


def test_bfloat16_becomes_float32(write):
    halves = bfloat16(VALUES)
    tree = {"weight": halves, "transposed": halves.T, "scalar": TorchTensor(halves.ravel(), 3, (), ())}
    assert_equal(read_tensors(write(tree)), {"weight": VALUES, "transposed": VALUES.T, "scalar": np.float32(3)})


def test_every_bit_of_bfloat16_is_kept():
    bits = np.arange(1 << 16, dtype=np.uint16)
    (ours,) = read_tensors(write_file("net.pth", torch_bytes({"weight": bits.view("V2")}))).values()
    assert np.array_equal(ours.view(np.uint32), bits.astype(np.uint32) << 16)


def test_numbers_of_a_big_endian_machine():
    tree = {**TENSORS, "bool": np.array([True, False])}
    assert_equal(read_tensors(write_file("net.pth", torch_bytes(tree, "big"))), tree)
    halves = write_file("net.pth", torch_bytes({"weight": bfloat16(VALUES)}, "big"))
    assert_equal(read_tensors(halves), {"weight": VALUES})
    with pytest.raises(ModelFileError, match=r"unknown byte order. Received: middle. Known: little, big"):
        read_tensors(write_file("net.pth", torch_zip(pickle.dumps({}), {}, "middle")))


@pytest.mark.parametrize("rest", [(True, OrderedDict()), (True, OrderedDict(), {"note": 1})])
def test_parameters(write, rest):
    name = "_rebuild_parameter" if len(rest) == 2 else "_rebuild_parameter_with_state"
    tree = {"model": {"weight": call("torch._utils", name, VALUES, *rest)}}
    assert_equal(read_tensors(write(tree)), {"weight": VALUES})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(protocol):
    tree = {
        "names": ["a", ("b", 2**40, -1, 1.5, None, True, b"bytes", bytearray(b"x"))],
        "set": {1, 2},
        "long": "x" * 300,
    }
    with pytest.raises(ModelFileError, match="holds no tensors"):
        read_tensors(pickled(pickle.dumps(tree | {"frozen": frozenset({1}), "counts": Counter("aab")}, protocol)))


# ---------------------------------------------------------------------------------------------------------------------
# Storages and places that do not fit


def tensor_pickle(count: int, offset: int, shape: tuple, stride: tuple, key: str = "0") -> Path:
    places = number(offset) + pickle.dumps(shape, 2)[2:-1] + pickle.dumps(stride, 2)[2:-1]
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference(key, count) + places + b"\x89}tR"
    return pickled(b"\x80\x02}X\x06\0\0\0weight" + tensor + b"s.")


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (3, (4,), (-1,)),
        (0, (-1,), (1,)),
        (0, (2**62, 2), (2**62, 1)),
        (2**200, (1,), (1,)),
        (4, (), ()),
        (4, (1,), (1,)),
    ],
)
def test_a_tensor_that_reaches_beyond_its_storage(offset, shape, stride):
    with pytest.raises(ModelFileError, match=r"is damaged: a tensor reaches beyond its storage"):
        read_tensors(tensor_pickle(4, offset, shape, stride))


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (2,), (1, 1)),
        (0, (1,) * 40, (1,) * 40),
        (0, (2.0,), (1,)),
        (0, (float("nan"),), (1,)),
        (0, ("2",), (1,)),
        (0, "22", "11"),
        (0, (1,), (2**80,)),
        (0, (0, 2**80), (1, 1)),
        (0, None, None),
    ],
)
def test_places_that_are_none(offset, shape, stride):
    with pytest.raises(ModelFileError, match=r"^net.pth: is damaged"):
        read_tensors(tensor_pickle(4, offset, shape, stride))


def test_one_number_that_would_fill_the_memory():
    assert read_tensors(tensor_pickle(4, 0, (10, 4), (0, 1)))["weight"].shape == (10, 4)
    for shape in ((2**20, 2**10), (2**40, 2**20), (2**62,)):
        with pytest.raises(ModelFileError, match=r"would fill \d+ bytes of memory, out of proportion to its size"):
            read_tensors(tensor_pickle(4, 0, shape, (0,) * len(shape)))


@pytest.mark.parametrize("count", [3, 5, 0, 2**60])
def test_a_storage_of_another_size(count):
    with pytest.raises(ModelFileError, match=rf"storage 0 of shape \({count},\) needs {4 * count} bytes. Received: 16"):
        read_tensors(tensor_pickle(count, 0, (0,), (1,)))


def test_storages_that_are_none():
    with pytest.raises(ModelFileError, match=r"is damaged: lacks a part. Received: net/data/1"):
        read_tensors(tensor_pickle(4, 0, (4,), (1,), key="1"))
    for content in (reference("0", 4).replace(b"Float", b"Complex"), reference("0", 4).replace(b"storage", b"modules")):
        with pytest.raises(ModelFileError, match=r"is not a tensor and is not loaded|something that is not a storage"):
            read_tensors(pickled(b"\x80\x02" + content + b"."))
    with pytest.raises(ModelFileError, match=r"something that is not a storage"):
        read_tensors(pickled(b"\x80\x02" + reference("0", -4) + b"."))
    with pytest.raises(ModelFileError, match=r"storage 0 has two types or sizes"):
        read_tensors(pickled(b"\x80\x02" + reference("0", 4) + reference("0", 3) + b"\x86."))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "uint16"])
def test_types_that_are_not_read_are_refused_by_name(write, dtype):
    rest = (0, (3, 4), (4, 1), False, OrderedDict(), named("torch", dtype), None)
    with pytest.raises(ModelFileError, match=rf"of a type that is not read. Received: torch.{dtype}. Known: Double, "):
        read_tensors(write({"weight": call("torch._utils", "_rebuild_tensor_v3", VALUES, *rest)}))


def rezipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile("again.pth", "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return Path("again.pth")


def test_other_zips():
    with zipfile.ZipFile(io.BytesIO(torch_bytes({"weight": VALUES}))) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    assert_equal(read_tensors(rezipped(entries, zipfile.ZIP_DEFLATED)), {"weight": VALUES})
    with pytest.raises(ModelFileError, match="by an unknown method"):
        read_tensors(rezipped(entries, zipfile.ZIP_LZMA))
    with pytest.raises(ModelFileError, match=r"must hold one data.pkl. Received: 2"):
        read_tensors(rezipped({**entries, "other/data.pkl": b""}))
    with pytest.raises(ModelFileError, match=r"must hold one data.pkl. Received: 0"):
        read_tensors(rezipped({"net/data/0": b"x"}))
    with pytest.raises(ModelFileError, match=r"would fill \d+ bytes of memory"):
        read_tensors(rezipped({**entries, "net/data/0": bytes(100 << 20)}, zipfile.ZIP_DEFLATED))


def test_storages_of_what_is_left_out_are_not_read():
    content = torch_bytes({"model": {"weight": VALUES}, "optimizer": {"state": {0: np.ones(5, np.float32)}}})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    del entries["net/data/1"]
    assert_equal(read_tensors(rezipped(entries)), {"weight": VALUES})


def test_members_that_lie_on_each_other():
    """Many names for one place in the file would otherwise be read many times."""
    content = bytearray(torch_bytes({str(n): np.full(40_000, n, np.float32) for n in range(9)}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        directory, members = archive.start_dir, archive.infolist()
    sizes = 16 * (len(content) + (64 << 20)) // len(members)
    place = directory
    for member in members:
        content[place + 24 : place + 28] = sizes.to_bytes(4, "little")
        place += 46 + len(member.filename)
    with pytest.raises(ModelFileError, match=r"would fill \d+ bytes of memory, out of proportion to its size"):
        read_tensors(write_file("net.pth", bytes(content)))


def test_an_archive_of_the_program_tar():
    content = b"net.pth".ljust(257, b"\0") + b"ustar\x0000" + bytes(1000)
    with pytest.raises(ModelFileError, match="is a tar archive and not a torch file"):
        read_tensors(write_file("net.pth.tar", content))


# ---------------------------------------------------------------------------------------------------------------------
# The format before 1.6


def test_other_counts_before_a_storage():
    content = legacy_torch_bytes({"weight": VALUES})
    for count in (11, 13, 2**62, 2**64 - 1):
        changed = content[: -48 - 8] + count.to_bytes(8, "little") + content[-48:]
        with pytest.raises(ModelFileError, match=rf"is damaged: storage 0 needs 12 numbers. Received: {count}"):
            read_tensors(write_file("net.pth", changed))


def test_storages_cut_off():
    content = legacy_torch_bytes({"weight": VALUES})
    for length in (1, 47, 48):
        with pytest.raises(ModelFileError, match="is damaged: cut off within storage 0"):
            read_tensors(write_file("net.pth", content[:-length]))
    # Behind the last storage nothing is looked for.
    assert_equal(read_tensors(write_file("net.pth", content + b"more")), {"weight": VALUES})


@pytest.mark.parametrize("keys", [b"]X\1\0\0\0ya.", b"N.", b"]Na.", b"])" + b"\x85" * 100_000 + b"a."])
def test_other_lists_of_storages(keys):
    content = legacy_torch_bytes({"weight": VALUES})
    own = pickle.dumps(["0"], 2)
    assert content.count(own) == 1
    with pytest.raises(ModelFileError, match="is damaged: its list of storages is not that of its tensors"):
        read_tensors(write_file("net.pth", content.replace(own, b"\x80\x02" + keys)))


def test_other_versions():
    content = legacy_torch_bytes({"weight": VALUES}).replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2), 1)
    with pytest.raises(ModelFileError, match="of an unknown version of torch's format"):
        read_tensors(write_file("net.pth", content))
