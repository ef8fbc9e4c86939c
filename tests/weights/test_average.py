"""The mean of checkpoints: exact, and of checkpoints of one network alone."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from src.errors import ModelFileError
from src.weights.average import open_mean
from src.weights.write import write_ckpt

RANDOM = np.random.default_rng(0)


def arrays() -> dict[str, np.ndarray]:
    return {
        "norm.gamma": RANDOM.normal(size=5).astype(np.float32),
        "head.weight": RANDOM.normal(size=(3, 5)).astype(np.float32),
    }


def written(name: str, tensors: dict[str, np.ndarray]) -> Path:
    write_ckpt(Path(name), tensors)
    return Path(name)


def test_the_mean_is_taken_in_float64():
    files = [arrays() for _ in range(7)]
    mean = open_mean([written(f"{i}.ckpt", tensors) for i, tensors in enumerate(files)])
    for name, array in mean.weights.items():
        assert array.dtype == np.float32
        expected = np.mean([tensors[name].astype(np.float64) for tensors in files], 0).astype(np.float32)
        assert np.array_equal(array, expected)
    assert mean.label == f"the mean of 7 files ({', '.join(f'{i}.ckpt' for i in range(7))})"


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_equal_files_are_their_own_mean(number):
    tensors = arrays()
    mean = open_mean([written(f"{i}.ckpt", tensors) for i in range(number)])
    assert mean.weights.keys() == tensors.keys()
    assert all(np.array_equal(mean.weights[name], array) for name, array in tensors.items())


def test_training_state_is_left_out_and_wrappers_do_not_matter():
    tensors = arrays()
    first = written("first.ckpt", {**tensors, "moment1.norm.gamma": np.ones(5, np.float32)})
    save_file({f"model.{name}": array for name, array in tensors.items()}, "second.safetensors")
    mean = open_mean([first, Path("second.safetensors")])
    assert mean.weights.keys() == tensors.keys()
    assert mean.left_over == ["moment1.norm.gamma"]


def test_another_network_is_refused():
    first = written("first.ckpt", arrays())
    tensors = arrays()
    tensors["head.bias"] = tensors.pop("norm.gamma")
    tensors["head.weight"] = tensors["head.weight"][:2]
    words = (
        r"^second\.ckpt: cannot be averaged with first\.ckpt: 1 missing: norm\.gamma; 1 more: head\.bias; "
        r"1 of another shape: head\.weight \(2, 5\) for \(3, 5\)$"
    )
    with pytest.raises(ModelFileError, match=words):
        open_mean([first, written("second.ckpt", tensors)])
