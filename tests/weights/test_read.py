"""Tensors of any weight file; nothing in a file is executed, and damage is an error and not a number."""

import contextlib
import os
import zipfile
from collections import OrderedDict
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from src.errors import ModelFileError
from src.weights.read import read_tensors
from src.weights.write import write_ckpt
from tests.oracles import ORACLES, requires_oracles
from tests.weights.files import call, ckpt_bytes, torch_bytes, write_file

RANDOM = np.random.default_rng(0)
TENSORS = {
    "blocks.0.norm1.weight": RANDOM.normal(size=6).astype(np.float32),
    "head.weight": RANDOM.normal(size=(4, 6)).astype(np.float32),
    "patch.weight": RANDOM.normal(size=(2, 3, 2, 2)).astype(np.float32),
    "step": np.array(7, np.int64),
    "half": RANDOM.normal(size=(3, 2)).astype(np.float16),
}
WRITERS = {".ckpt": ckpt_bytes, ".safetensors": save, ".pth": torch_bytes}


def assert_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray] = TENSORS) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        assert ours[name].shape == array.shape
        assert np.array_equal(ours[name], array)


@pytest.fixture(params=WRITERS)
def suffix(request) -> str:
    return request.param


def test_every_kind_of_file(suffix):
    assert_equal(read_tensors(write_file(f"net{suffix}", WRITERS[suffix](TENSORS))))


def test_arrays_are_the_readers_own(suffix):
    path = write_file(f"net{suffix}", WRITERS[suffix](TENSORS))
    tensors = read_tensors(path)
    tensors["head.weight"] += 1
    assert_equal(read_tensors(path))


def test_checkpoints_of_mindspore_itself():
    named = [{"name": name, "data": ms.Tensor(array)} for name, array in TENSORS.items()]
    ms.save_checkpoint(named, "net.ckpt")
    assert_equal(read_tensors(Path("net.ckpt")))


def test_mindspore_reads_what_is_written_here():
    floats = {name: array for name, array in TENSORS.items() if array.dtype == np.float32}
    write_ckpt(Path("net.ckpt"), floats)
    assert_equal({name: tensor.asnumpy() for name, tensor in ms.load_checkpoint("net.ckpt").items()}, floats)
    assert_equal(read_tensors(Path("net.ckpt")), floats)


def test_large_tensors_in_slices():
    assert_equal(read_tensors(write_file("net.ckpt", ckpt_bytes(TENSORS, slices=3))))


@pytest.mark.parametrize("key", ["model", "state_dict", "model_ema", "state_dict_ema"])
def test_torch_wrappers(key):
    tree = {"epoch": 7, "arch": "vit", key: OrderedDict(TENSORS), "optimizer": {"state": {}, "lr": 0.1}}
    assert_equal(read_tensors(write_file("net.pth", torch_bytes(tree))))


def test_torch_strides():
    transposed = {"weight": np.arange(12, dtype=np.float32).reshape(3, 4).T}
    assert not transposed["weight"].flags.c_contiguous
    assert_equal(read_tensors(write_file("net.pth", torch_bytes(transposed))), transposed)


@requires_oracles
def test_files_of_torch_itself():
    folder = ORACLES / "models" / "cct_2_3x2_32"
    theirs = read_tensors(folder / "weights.safetensors")
    assert_equal(read_tensors(folder / "weights.pth"), theirs)
    # Published as .pth.tar: {'state_dict': {'module.…': …}, 'epoch': 7, …}.
    wrapped = read_tensors(write_file("wrapped.pth", (folder / "weights_ddp_wrapped.pth.tar").read_bytes()))
    assert_equal({name.removeprefix("module."): array for name, array in wrapped.items()}, theirs)
    with pytest.raises(ModelFileError, match=r"of torch before 1\.6, whose format is not read yet"):
        read_tensors(folder / "weights_legacy.pth")


# ---------------------------------------------------------------------------------------------------------------------
# Nothing is executed


@pytest.mark.parametrize(
    "evil",
    [
        call("os", "system", "touch executed"),
        call("posix", "system", "touch executed"),
        call("builtins", "eval", "open('executed', 'w')"),
        call("subprocess", "run", ["touch", "executed"]),
        call("torch", "load", "executed"),
        call("numpy.core.multiarray", "scalar", "executed"),
    ],
)
@pytest.mark.parametrize("place", ["value", "beside", "root"])
def test_a_pickle_is_refused_not_run(evil, place, monkeypatch):
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("was executed"))
    tree = {"value": {"head.weight": evil}, "beside": {"model": dict(TENSORS), "args": evil}, "root": evil}[place]
    with pytest.raises(ModelFileError, match=r"holds an object that is not a tensor and is not loaded. Received: "):
        read_tensors(write_file("net.pth", torch_bytes(tree)))
    assert not Path("executed").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Damage


def test_no_file_and_unknown_kinds():
    with pytest.raises(ModelFileError, match=r"^none.ckpt: no such file$") as caught:
        read_tensors(Path("none.ckpt"))
    assert caught.value.exit_code == 4
    for name in ("net.onnx", "net", "net.bin"):
        with pytest.raises(ModelFileError, match=rf"^{name}: unknown kind of weight file. Received: "):
            read_tensors(write_file(name, b"x"))


@pytest.mark.parametrize("content", [b"", b"x", b"hello world" * 10, bytes(range(256))])
def test_something_else_under_a_known_suffix(suffix, content):
    with pytest.raises(ModelFileError, match=rf"^net{suffix}: "):
        read_tensors(write_file(f"net{suffix}", content))


def is_subset(ours: dict[str, np.ndarray]) -> bool:
    """All that was read is right; a file cut between two tensors is found by its missing names."""
    return all(name in TENSORS and np.array_equal(array, TENSORS[name]) for name, array in ours.items())


def read_or_refuse(name: str, content: bytes) -> dict[str, np.ndarray] | None:
    """What a file of this content holds, None where it is refused; any other error fails the test."""
    with contextlib.suppress(ModelFileError):
        return read_tensors(write_file(name, content))
    return None


def test_cut_anywhere(suffix):
    content = WRITERS[suffix](TENSORS)
    lengths = range(0, len(content), max(1, len(content) // 150))
    readable = [ours for ours in (read_or_refuse(f"net{suffix}", content[:n]) for n in lengths) if ours is not None]
    assert all(is_subset(ours) and len(ours) < len(TENSORS) for ours in readable)
    # Only a checkpoint has places between tensors.
    assert len(readable) <= (len(TENSORS) if suffix == ".ckpt" else 0)


@pytest.mark.parametrize("bad", [0, 3, 255])
def test_any_byte_changed_is_refused_or_readable(suffix, bad):
    content = WRITERS[suffix](TENSORS)
    for place in range(0, len(content), max(1, len(content) // 150)):
        ours = read_or_refuse(f"net{suffix}", content[:place] + bytes([bad]) + content[place + 1 :])
        assert ours is None or all(isinstance(array, np.ndarray) for array in ours.values())


@given(st.lists(st.integers(-(2**40), 2**40), max_size=4), st.binary(max_size=64))
def test_dims_that_do_not_fit_the_data(dims, content):
    from mindspore.train.checkpoint_pb2 import Checkpoint

    message = Checkpoint()
    value = message.value.add()
    value.tag = "weight"
    value.tensor.dims.extend(dims)
    value.tensor.tensor_type = "Float32"
    value.tensor.tensor_content = content
    path = write_file("net.ckpt", message.SerializeToString())
    shape = () if dims == [0] else tuple(dims)
    fits = min(shape, default=1) >= 0 and int(np.prod(shape, dtype=object)) * 4 == len(content)
    if fits:
        assert read_tensors(path)["weight"].shape == shape
    else:
        with pytest.raises(ModelFileError, match=r"^net.ckpt: is damaged: tensor weight of shape"):
            read_tensors(path)


def test_unknown_type_of_a_checkpoint_tensor():
    content = ckpt_bytes({"weight": np.ones(2, np.float32)}).replace(b"Float32", b"Float31")
    with pytest.raises(ModelFileError, match=r"tensor weight has an unknown type. Received: Float31"):
        read_tensors(write_file("net.ckpt", content))


def test_a_torch_storage_that_is_too_short():
    content = torch_bytes({"weight": np.ones((3, 4), np.float32)})
    with zipfile.ZipFile(write_file("net.pth", content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["net/data/0"] = entries["net/data/0"][:-4]
    with zipfile.ZipFile("short.pth", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(ModelFileError, match=r"is damaged: tensor storage 0 of shape \(12,\) needs 48 bytes"):
        read_tensors(Path("short.pth"))


def test_a_torch_tensor_that_reaches_beyond_its_storage():
    weight = np.ones((3, 4), np.float32)
    wide = np.lib.stride_tricks.as_strided(weight, (3, 4), (64, 4), writeable=False)
    with pytest.raises(ModelFileError, match=r"is damaged: a tensor reaches beyond its storage"):
        read_tensors(write_file("net.pth", torch_bytes({"weight": wide})))


def test_a_file_without_tensors(suffix):
    with pytest.raises(ModelFileError, match=rf"^net{suffix}: "):
        read_tensors(write_file(f"net{suffix}", WRITERS[suffix]({})))
    with pytest.raises(ModelFileError, match="must hold a dictionary of tensors"):
        read_tensors(write_file("net.pth", torch_bytes([1, 2])))
