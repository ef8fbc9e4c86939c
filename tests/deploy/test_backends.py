"""What is called for logits: filling is cut off, the first call is not timed, a library's failure names the file."""

import time
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.deploy.backends import CallBackend, in_chunks, mindir_backend, onnx_backend
from src.deploy.exporter import write_graph
from src.deploy.model_info import InputInfo, ModelInfo
from src.errors import ModelFileError
from src.schema import ExportConfig
from tests.deploy.descriptions import description


def sums(image_BCYX: np.ndarray) -> np.ndarray:
    return image_BCYX.sum((2, 3))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 4, 4)).astype(np.float32)


def test_filling_is_cut_off():
    backend = CallBackend(sums, "int8")
    backend.add(images(4), 4)
    backend.add(images(4), 1)
    answers = backend.answers()
    np.testing.assert_array_equal(answers.logits_NK, np.concatenate([sums(images(4)), sums(images(4))[:1]]))
    assert answers.quantization == "int8"


def test_the_median_of_batches_without_the_first_call():
    naps = iter([0.6, 0.02, 0.04, 0.6])

    def compute(image_BCYX: np.ndarray) -> np.ndarray:
        time.sleep(next(naps))
        return sums(image_BCYX)

    backend = CallBackend(compute)
    for _ in range(3):
        backend.add(images(4), 4)
    assert 10 <= backend.answers().ms_per_image < 50


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_chunks_of_a_fixed_size(count):
    seen = []

    def compute(image_BCYX: np.ndarray) -> np.ndarray:
        seen.append(len(image_BCYX))
        return sums(image_BCYX)

    np.testing.assert_array_equal(in_chunks(compute, 3)(images(count)), sums(images(count)))
    assert seen == [3] * -(-count // 3)
    np.testing.assert_array_equal(in_chunks(compute, None)(images(count)), sums(images(count)))
    assert seen[-1] == count


def exported(tmp_path: Path, file_format: str) -> tuple[Path, ModelInfo]:
    path = tmp_path / f"net.{file_format.lower()}"
    ms.export(nn.Flatten(), Tensor(images(2)), file_name=str(path), file_format=file_format)
    ir_version = 3 if file_format == "MINDIR" else None
    return path, description(file=path.name, file_format=file_format, ir_version=ir_version)


@pytest.mark.parametrize(("file_format", "open_file"), [("MINDIR", mindir_backend), ("ONNX", onnx_backend)])
def test_what_a_library_cannot_run_is_a_fault_of_the_file(file_format, open_file, tmp_path):
    path, info = exported(tmp_path, file_format)
    backend = open_file(path, with_shape(info, 2, 3, 4, 4))
    backend.add(images(3), 3)
    np.testing.assert_array_equal(backend.answers().logits_NK, images(3).reshape(3, 48))
    path.write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=rf"net\.{file_format.lower()}: .* cannot run it: \S"):
        open_file(path, info)


class Rows(nn.Cell):
    """(B, 3, 4, 4) -> (B, 48)."""

    def construct(self, image_BCYX: Tensor) -> Tensor:
        return image_BCYX.reshape(-1, 48) + 0.0


@pytest.mark.parametrize(("file_format", "open_file"), [("MINDIR", mindir_backend), ("ONNX", onnx_backend)])
def test_a_file_for_any_number_of_images_takes_batches_as_they_come(file_format, open_file, tmp_path):
    path = tmp_path / f"rows.{file_format.lower()}"
    write_graph(Rows(), (None, 3, 4, 4), path, ExportConfig(file_format=file_format))
    info = description(file=path.name, file_format=file_format, ir_version=3 if file_format == "MINDIR" else None)
    backend = open_file(path, with_shape(info, None, 3, 4, 4))
    for count in (3, 1, 5):
        backend.add(images(count), count)
    expected = np.concatenate([images(count).reshape(count, 48) for count in (3, 1, 5)])
    np.testing.assert_array_equal(backend.answers().logits_NK, expected)


def test_a_described_shape_that_is_wrong(tmp_path):
    path, info = exported(tmp_path, "ONNX")
    backend = onnx_backend(path, with_shape(info, 5, 3, 4, 4))
    with pytest.raises(ModelFileError, match=r"net\.onnx: ONNX Runtime cannot run it: "):
        backend.add(images(5), 5)


def with_shape(info: ModelInfo, *shape: int | None) -> ModelInfo:
    return info.model_copy(update={"input": InputInfo(name="image_BCYX", shape=shape, dtype="float32")})
