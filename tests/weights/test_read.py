"""Tensors of any weight file; nothing in a file is executed, and damage is an error and not a number."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.errors import ModelFileError
from src.weights.read import read_tensors
from tests.oracles import ORACLES, requires_oracles
from tests.weights.files import WRITERS, write_file

RANDOM = np.random.default_rng(0)
TENSORS = {
    "blocks.0.norm1.weight": RANDOM.normal(size=6).astype(np.float32),
    "head.weight": RANDOM.normal(size=(4, 6)).astype(np.float32),
    "patch.weight": RANDOM.normal(size=(2, 3, 2, 2)).astype(np.float32),
    "step": np.array(7, np.int64),
    "half": RANDOM.normal(size=(3, 2)).astype(np.float16),
}
CONTENTS = {name: write(TENSORS) for name, write in WRITERS.items()}
# Only a checkpoint has places between tensors, and only these two have checksums.
CHECKED = ("net.pth", "net.npz")


def assert_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray] = TENSORS) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        assert ours[name].shape == array.shape
        assert np.array_equal(ours[name], array)


@pytest.fixture(params=WRITERS)
def name(request) -> str:
    return request.param


def test_every_kind_of_file(name):
    tensors = read_tensors(write_file(name, CONTENTS[name]))
    assert_equal(tensors)
    assert list(tensors) == list(TENSORS) or name == "net.safetensors"
    assert all(array.flags.c_contiguous and array.dtype.isnative for array in tensors.values())


def test_arrays_are_the_readers_own(name):
    path = write_file(name, CONTENTS[name])
    tensors = read_tensors(path)
    for array in tensors.values():
        array += 1
    assert_equal(read_tensors(path))


@pytest.mark.parametrize("alias", ["net.pt", "net.bin", "net.th", "net.tar", "net.pth.tar"])
def test_names_of_torch_files(alias):
    assert_equal(read_tensors(write_file(alias, CONTENTS["net.pth"])))
    assert_equal(read_tensors(write_file(alias, CONTENTS["legacy.pth.tar"])))


# ---------------------------------------------------------------------------------------------------------------------
# Files of the libraries themselves


@requires_oracles
def test_files_of_torch_itself():
    folders = [path.parent for path in ORACLES.glob("models/*/weights.pth")]
    assert folders
    for folder in folders:
        theirs = read_tensors(folder / "weights.safetensors")
        assert_equal(read_tensors(folder / "weights.pth"), theirs)


@requires_oracles
def test_other_containers_of_the_same_weights():
    folder = ORACLES / "models" / "cct_2_3x2_32"
    theirs = read_tensors(folder / "weights.safetensors")
    assert_equal(read_tensors(folder / "weights_legacy.pth"), theirs)
    # {'state_dict': {'module.…': …}, 'epoch': 7, …}.
    wrapped = read_tensors(folder / "weights_ddp_wrapped.pth.tar")
    assert_equal({name.removeprefix("module."): array for name, array in wrapped.items()}, theirs)


@requires_oracles
def test_other_names_of_the_same_weights():
    folder = ORACLES / "models" / "tnt_s_w96_d2"
    official = read_tensors(folder / "weights_official_names.pth")
    theirs = read_tensors(folder / "weights.pth")
    assert official["inner_pos"].shape == (1, 16, 24)
    assert np.array_equal(official["cls_token"], theirs["cls_token"])


@requires_oracles
def test_files_of_jax():
    paths = list(ORACLES.glob("jax/*/weights.npz"))
    assert paths
    for path in paths:
        with np.load(path) as archive:
            assert_equal(read_tensors(path), dict(archive))


# ---------------------------------------------------------------------------------------------------------------------
# No weight file


def test_no_file_and_unknown_kinds():
    with pytest.raises(ModelFileError, match=r"^none.ckpt: no such file$") as caught:
        read_tensors(Path("none.ckpt"))
    assert caught.value.exit_code == 4
    for unknown in ("net.onnx", "net", "net.npy"):
        with pytest.raises(ModelFileError, match=rf"^{unknown}: unknown kind of weight file. Received: ") as caught:
            read_tensors(write_file(unknown, b"x"))
        assert all(suffix in str(caught.value) for suffix in (".ckpt", ".safetensors", ".npz", ".pth", ".bin"))


def test_something_that_is_no_file(name):
    Path(name).mkdir()
    with pytest.raises(ModelFileError, match=rf"^{name}: is a folder and not a weight file$"):
        read_tensors(Path(name))
    os.mkfifo("pipe.ckpt")
    with pytest.raises(ModelFileError, match=r"^pipe.ckpt: is not a regular file$"):
        read_tensors(Path("pipe.ckpt"))
    with pytest.raises(ModelFileError, match=r"cannot be read: not a directory$"):
        read_tensors(write_file("file", b"") / name)


def failing(error: Exception) -> Callable:
    def open_or_read(*_: object, **__: object) -> None:
        raise error

    return open_or_read


def test_a_file_that_cannot_be_read_or_held(name, monkeypatch):
    path = write_file(name, b"x")
    monkeypatch.setattr(Path, "open", failing(PermissionError(13, "Permission denied")))
    monkeypatch.setattr("zipfile.ZipFile", failing(PermissionError(13, "Permission denied")))
    with pytest.raises(ModelFileError, match=rf"^{name}: cannot be read: permission denied$"):
        read_tensors(path)
    monkeypatch.setattr(Path, "open", failing(MemoryError()))
    monkeypatch.setattr("zipfile.ZipFile", failing(MemoryError()))
    with pytest.raises(ModelFileError, match=rf"^{name}: does not fit into memory$"):
        read_tensors(path)


# ---------------------------------------------------------------------------------------------------------------------
# Damage


@pytest.mark.parametrize("content", [b"", b"x", b"hello world" * 10, bytes(range(256)), b"PK\x03\x04", b"\n\xff" * 9])
def test_something_else_under_a_known_suffix(name, content):
    with pytest.raises(ModelFileError, match=rf"^{name}: [^\n]+$"):
        read_tensors(write_file(name, content))


def test_one_format_under_the_name_of_another(name):
    for other in WRITERS.keys() - {name}:
        if {name, other} != {"net.pth", "legacy.pth.tar"}:
            with pytest.raises(ModelFileError, match=rf"^{name}: [^\n]+$"):
                read_tensors(write_file(name, CONTENTS[other]))


def test_a_file_without_tensors(name):
    with pytest.raises(ModelFileError, match=rf"^{name}: holds no tensors$"):
        read_tensors(write_file(name, WRITERS[name]({})))


def is_subset(ours: dict[str, np.ndarray]) -> bool:
    """All that was read is right; a file cut between two tensors is found by its missing names."""
    return all(name in TENSORS and np.array_equal(array, TENSORS[name]) for name, array in ours.items())


def read_or_refuse(name: str, content: bytes) -> dict[str, np.ndarray] | None:
    """What a file of this content holds, None where it is refused; any other error fails the test."""
    with contextlib.suppress(ModelFileError):
        return read_tensors(write_file(name, content))
    return None


def test_cut_anywhere(name):
    content = CONTENTS[name]
    lengths = range(0, len(content), max(1, len(content) // 150))
    readable = [ours for ours in (read_or_refuse(name, content[:n]) for n in lengths) if ours is not None]
    assert all(is_subset(ours) and len(ours) < len(TENSORS) for ours in readable)
    assert len(readable) <= (len(TENSORS) if name == "net.ckpt" else 0)


@pytest.mark.parametrize("bad", [0, 3, 255])
def test_any_byte_changed_is_refused_or_readable(name, bad):
    content = CONTENTS[name]
    for place in range(0, len(content), max(1, len(content) // 150)):
        ours = read_or_refuse(name, content[:place] + bytes([bad]) + content[place + 1 :])
        assert ours is None or all(isinstance(array, np.ndarray) for array in ours.values())


@pytest.mark.parametrize("kind", WRITERS)
@given(data=st.data())
def test_any_bytes_changed_inserted_or_lost(kind, data):
    content = bytearray(CONTENTS[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    ours = read_or_refuse(kind, bytes(content))
    assert ours is None or all(isinstance(array, np.ndarray) for array in ours.values())
    # A member that is lost from the list at the end is found by its missing name.
    assert (
        ours is None
        or kind not in CHECKED
        or all(np.array_equal(array, TENSORS[name]) for name, array in ours.items() if name in TENSORS)
    )


@pytest.mark.parametrize("kind", WRITERS)
@given(content=st.binary(max_size=300))
def test_random_bytes(kind, content):
    beginnings = {"net.npz": b"PK\x03\x04", "net.pth": b"PK\x03\x04", "net.ckpt": b"\n"}
    for beginning in (b"", beginnings.get(kind, CONTENTS[kind][:15])):
        assert read_or_refuse(kind, beginning + content) is None or kind == "net.ckpt"


def test_errors_are_one_line(name):
    content = CONTENTS[name].replace(b"head.weight", b"head\nweight")
    with pytest.raises(ModelFileError) as caught:
        read_tensors(write_file(name, content[:-1]))
    assert len(caught.value.lines) == 1
    assert re.fullmatch(rf"{name}: [^\n]+", caught.value.lines[0])
