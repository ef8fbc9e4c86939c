"""The pickle inside a torch file: harmless objects are left out, and nothing is run or blown up."""

import argparse
import contextlib
import io
import os
import pickle
import struct
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.errors import ModelFileError
from src.weights.read import read_tensors
from tests.weights.files import (
    call,
    legacy_head,
    legacy_torch_bytes,
    named,
    pickled,
    reference,
    torch_bytes,
    torch_zip,
    write_file,
)
from tests.weights.test_read import TENSORS, assert_equal

# ---------------------------------------------------------------------------------------------------------------------
# Objects beside the weights

HARMLESS = {
    "arguments": argparse.Namespace(lr=0.1, out=Path("runs"), names=["a"]),
    "numpy": [np.float64(0.5), np.dtype("float32"), np.int64(3), np.arange(3).astype(np.int8).tobytes()],
    "schedule": {"milestones": Counter([30, 60]), "state": defaultdict(dict, {0: {"step": 1}})},
    "sets": ({1, 2}, frozenset({3})),
    "torch": [
        call("torch", "Size", (2, 3)),
        call("torch", "device", "cuda", 0),
        named("torch", "float16"),
        named("torch", "float8_e4m3fn"),
    ],
    "numpy 2": call("numpy._core.multiarray", "scalar", call("numpy", "dtype", "f8", False, True), b"\0" * 8),
    "array": call("numpy.core.multiarray", "_reconstruct", named("numpy", "ndarray"), (0,), b"b"),
}


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("place", ["beside", "among", "root"])
def test_harmless_objects_are_left_out(write, kind, place):
    thing = HARMLESS[kind]
    if place == "root":
        with pytest.raises(ModelFileError, match=r"must hold a dictionary of tensors|holds no tensors"):
            read_tensors(write(thing))
    else:
        tree = {"model": TENSORS, "thing": thing} if place == "beside" else {**TENSORS, "thing": thing}
        assert_equal(read_tensors(write(tree)))


EVIL = [
    call("os", "system", "touch executed"),
    call("posix", "system", "touch executed"),
    call("builtins", "eval", "open('executed', 'w')"),
    call("builtins", "exec", "open('executed', 'w')"),
    call("__builtin__", "eval", "open('executed', 'w')"),
    call("builtins", "getattr", named("torch", "Size"), "__init__"),
    call("subprocess", "run", ["touch", "executed"]),
    call("functools", "partial", named("os", "system"), "touch executed"),
    call("torch", "load", "executed"),
    call("torch._utils", "_rebuild_sparse_tensor", "executed"),
    call("numpy.core.multiarray", "fromfile", "executed"),
    call("collections", "namedtuple", "executed"),
    call("argparse", "FileType", "w"),
    named("os", "system"),
    named("torch", "serialization.os.system"),
]


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("place", ["value", "beside", "root", "within"])
def test_a_pickle_is_refused_not_run(write, evil, place, monkeypatch):
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("was executed"))
    tree = {
        "value": {"head.weight": evil},
        "beside": {"model": dict(TENSORS), "args": evil},
        "root": evil,
        "within": {"model": dict(TENSORS), "args": call("argparse", "Namespace", [{"x": evil}])},
    }[place]
    function = getattr(evil, "function", evil)
    with pytest.raises(ModelFileError) as caught:
        read_tensors(write(tree))
    rule = "holds an object that is not a tensor and is not loaded"
    refused = f"net.pth: {rule}. Received: {function.module}.{function.name}"
    # Of two evil names the one is refused that is read first.
    assert str(caught.value) in (refused, f"net.pth: {rule}. Received: os.system")
    assert not Path("executed").exists()


class Spy:
    """Pickled by Python's own writer, with whatever ways of building an object it has."""

    def __init__(self, *reduced: object):
        self.reduced = reduced

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
def test_no_protocol_runs_anything(protocol):
    for spy in (Spy(os.system, ("touch executed",)), Spy(eval, ("open('executed', 'w')",)), Spy(print, (), {"a": 1})):
        with pytest.raises(ModelFileError, match=r"^net.pth: (holds an object that is not|is damaged or not a torch)"):
            read_tensors(pickled(pickle.dumps({"model": {}, "x": spy}, protocol)))
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"(S'touch executed'\nios\nsystem\n.",
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"(cos\nsystem\nS'touch executed'\no.",
        b"\x80\x02\x82\x01.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
        b"\x80\x02Ppersistent\n.",
    ],
)
def test_every_opcode_that_builds(content):
    with pytest.raises(ModelFileError, match=r"^net.pth: (holds an object that is not|is damaged or not a torch)"):
        read_tensors(pickled(content))
    assert not Path("executed").exists()


# ---------------------------------------------------------------------------------------------------------------------
# A pickle cannot take memory or time, or end the process


@pytest.mark.parametrize(
    "content",
    [
        # Lengths that are not there.
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b".",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x02X\xff\xff\xff\x7fx.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b".",
        # The memo of Python's reader would grow to this place.
        b"\x80\x02}r\xff\xff\xff\xffr\xff\xff\xff\x7f0.",
        b"\x80\x02j\xff\xff\xff\x7f.",
        # Python's reader would end the process at the hash of the key, or never end.
        b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",
        b"\x80\x02})" + b"q\0h\0\x86" * 200 + b"Ns.",
        b"\x80\x02\x8f()" + b"q\0h\0\x86" * 200 + b"\x90.",
        # Depth.
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        # Tuples whose text doubles each time.
        b"\x80\x02]" + b"q\0h\0\x86" * 200 + b".",
        b"\x80\x04)" + b"q\0h\0\x86" * 200 + b"q\0h\0\x93.",
        # A text of two billion letters.
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\0(J\xff\xff\xff\x7ft(U\1xttR.",
        # The stack's end.
        b"\x80\x02.",
        b"\x80\x02t.",
        b"\x80\x02R.",
        b"\x80\x02}N\x86s.",
        b"\x80\x02}(Nu.",
        b"\x80\x02Q.",
        b"\x80\x02NQ.",
        b"\x80\x02NN\x86R.",
        b"",
        b".",
        b"\x80",
        b"\x80\x02}",
        b"\xff\xff",
    ],
)
def test_pickles_that_would_overturn_a_reader(content):
    with pytest.raises(ModelFileError, match=r"^net.pth: (is damaged|must hold a dictionary|holds no tensors)[^\n]*$"):
        read_tensors(pickled(content))
    keys = pickle.dumps([], 2)
    with pytest.raises(
        ModelFileError, match=r"^legacy.pth: (is damaged|must hold a dictionary|holds no tensors)[^\n]*$"
    ):
        read_tensors(write_file("legacy.pth", legacy_head() + content + keys))


def test_dictionaries_copied_again_and_again():
    ordered = b"ccollections\nOrderedDict\nq\1"
    entries = b"(" + b"".join(b"X\x04\0\0\0%04dN" % n for n in range(2000)) + b"u"
    copies = b"".join(b"h\1h\2\x85R" for _ in range(2000))
    with pytest.raises(ModelFileError, match="is damaged: copies more entries than it holds"):
        read_tensors(pickled(b"\x80\x02" + ordered + b"}q\2" + entries + copies + b"."))


def test_dictionary_and_tensor_of_python_2():
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + reference("0", 4) + b"K\x00(K\x04t(K\x01ttR"
    content = b"\x80\x02ccollections\nOrderedDict\n]](U\x06weight" + tensor + b"ea\x85R."
    assert_equal(read_tensors(pickled(content)), {"weight": np.arange(4, dtype=np.float32)})


def test_more_opcodes_than_any_weights_have(monkeypatch):
    monkeypatch.setattr("src.pickle_follower.MOST_OPCODES", 50)
    with pytest.raises(ModelFileError, match="holds more objects than any torch file has"):
        read_tensors(write_file("net.pth", torch_bytes(TENSORS)))


def test_arguments_without_end():
    arguments = b"(" + b"K\1" * 1000 + b"t"
    with pytest.raises(ModelFileError, match=r"too many arguments of torch._utils._rebuild_parameter. Received: 1000"):
        read_tensors(pickled(b"\x80\x02ctorch._utils\n_rebuild_parameter\n" + arguments + b"R."))


# ---------------------------------------------------------------------------------------------------------------------
# Damage inside the pickle, which the zip's checksum would hide

GOOD = legacy_torch_bytes({"model": TENSORS, "args": argparse.Namespace(lr=0.1), "epoch": np.float64(3)})
with zipfile.ZipFile(io.BytesIO(torch_bytes({"model": TENSORS, "args": argparse.Namespace(lr=0.1)}))) as _archive:
    PARTS = {_name: _archive.read(_name) for _name in _archive.namelist()}


@given(st.data())
def test_any_byte_of_the_pickle_changed(data):
    content = bytearray(PARTS["net/data.pkl"])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    storages = {name.rpartition("/")[2]: part for name, part in PARTS.items() if name.startswith("net/data/")}
    path = write_file("net.pth", torch_zip(bytes(content), storages))
    with contextlib.suppress(ModelFileError):
        assert all(isinstance(array, np.ndarray) for array in read_tensors(path).values())


@given(
    st.lists(st.sampled_from(list(b"}]()tR\x85\x86\x87NabsueQ.0hq\x00\x01\x02K\x81\x8f\x90\x91\x93\x94")), max_size=60)
)
def test_any_row_of_opcodes(opcodes):
    with pytest.raises(ModelFileError):
        read_tensors(pickled(b"\x80\x02}q\0ctorch._utils\n_rebuild_tensor_v2\nq\1" + bytes(opcodes)))


def test_the_legacy_file_with_objects_beside():
    assert_equal(read_tensors(write_file("net.pth", GOOD)))
