"""Proof that every backend gives the checkpoint's answers: the same images through each, logits compared.

Shape letters: B batch, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.config import require_built
from src.data.loader import EvalBatches, open_reader, read_eval
from src.data.sources import open_split
from src.data.transforms import EvalTransform
from src.deploy.model_info import ModelInfo, verified_model_info
from src.deploy.results import read_logits
from src.device import open_device
from src.errors import ConfigError, ModelFileError, NumbersError
from src.files import write_json
from src.metrics import top_counts
from src.models import build_configured_model, resolved
from src.schema import BUILT_FOR_EVALUATION, Config
from src.weights.load import given_weights, load_given_weights
from src.weights.numerics import with_numerics

Backend = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Row:
    """One backend against the checkpoint.

    Attributes:
        backend: what computed.
        images: how many were compared.
        top1: share of right answers.
        top5: share of right answers among the first five.
        agreement: share of images with the checkpoint's first class.
        max_difference: largest absolute difference of a logit.
    """

    backend: str
    images: int
    top1: float
    top5: float
    agreement: float
    max_difference: float


def verify(config: Config) -> list[Row]:
    """Run the val split through the checkpoint and every exported form that is given; print and save the table.

    Raises:
        ConfigError: nothing to compare with.
        NumbersError: a backend that differs by more than ``tolerance``, or names another class for an image.
        DataError: missing images, or results of the C++ runner that are missing or damaged.
        ModelFileError: a file that is missing, damaged, or of another model.
    """
    require_built(config, BUILT_FOR_EVALUATION)
    config = resolved(config)
    model, data, run, wanted = config.model, config.data, config.run, config.verify
    if not (wanted.mindir_path or wanted.onnx_path or wanted.result_dir):
        raise ConfigError("verify", "needs something to compare with", None, "--mindir_path, --onnx_path, --result_dir")
    weights = given_weights(model)
    images = open_split(data, "val", model.num_classes)
    open_device(run)
    model = with_numerics(model, weights)
    net = build_configured_model(model)
    print(load_given_weights(net, model))
    backends: dict[str, Backend] = {"checkpoint": lambda image_BCYX: net(Tensor(image_BCYX)).asnumpy()}
    infos = [verified_model_info(Path(path)) for path in (wanted.mindir_path, wanted.onnx_path) if path]
    transform = _one_transform(config, infos)
    if wanted.mindir_path:
        backends["MINDIR in MindSpore"] = mindir_backend(Path(wanted.mindir_path))
    if wanted.onnx_path:
        backends["ONNX Runtime"] = onnx_backend(Path(wanted.onnx_path))
    logits = run_backends(backends, EvalBatches(images, transform, data.batch_size), data.num_parallel_workers)
    if wanted.result_dir:
        logits["C++ runner (Lite)"] = read_logits(Path(wanted.result_dir), list(images.paths))
    rows = compare(logits, np.array(images.labels))
    print(format_table(rows))
    target = Path(config.checkpoint.output_dir) / "verify.json"
    write_json(target, {"weights": str(weights), "tolerance": wanted.tolerance, "rows": [asdict(row) for row in rows]})
    bad = [row for row in rows if row.max_difference > wanted.tolerance or row.agreement < 1.0]
    if bad:
        names = ", ".join(f"{row.backend} by {row.max_difference:.2e}, agreement {row.agreement:.2%}" for row in bad)
        raise NumbersError("verify", f"differs from the checkpoint by more than {wanted.tolerance:g}", names)
    print(f"=> verify success: {len(rows)} backends agree on {rows[0].images} images within {wanted.tolerance:g}")
    return rows


def run_backends(backends: dict[str, Backend], batches: EvalBatches, workers: int) -> dict[str, np.ndarray]:
    """Logits (N, K) of every backend over all images."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in backends}
    with open_reader(workers, val=batches) as reader:
        for batch in read_eval(reader):
            real = int(np.count_nonzero(~batch.is_padding_B))
            for name, backend in backends.items():
                parts[name].append(backend(batch.image_BCYX)[:real])
    return {name: np.concatenate(found) for name, found in parts.items()}


def mindir_backend(path: Path) -> Backend:
    """A MINDIR of IR version 3, run by MindSpore at the batch size it was exported with.

    Raises:
        ModelFileError: another format, or an IR version that MindSpore does not run.
    """
    info = verified_model_info(path)
    if info.file_format != "MINDIR" or info.ir_version != 3:
        received = f"{info.file_format}, IR version {info.ir_version}"
        raise ModelFileError(path, "MindSpore runs MINDIR files of IR version 3", received)
    net = nn.GraphCell(ms.load(str(path)))
    return in_chunks(lambda image_BCYX: net(Tensor(image_BCYX)).asnumpy(), info.input.shape[0])


def onnx_backend(path: Path) -> Backend:
    """An ONNX file, run by ONNX Runtime at the batch size it was exported with."""
    import onnxruntime

    info = verified_model_info(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return in_chunks(lambda image_BCYX: session.run(None, {name: image_BCYX})[0], info.input.shape[0])


def in_chunks(backend: Backend, size: int) -> Backend:
    """A backend of a fixed batch size for any number of images; the last call is filled up with zeros."""

    def run(image_BCYX: np.ndarray) -> np.ndarray:
        B = len(image_BCYX)
        filling = np.zeros((-B % size, *image_BCYX.shape[1:]), np.float32)
        filled = np.concatenate([image_BCYX, filling])
        return np.concatenate([backend(filled[first : first + size]) for first in range(0, len(filled), size)])[:B]

    return run


def compare(logits: dict[str, np.ndarray], label_N: np.ndarray) -> list[Row]:
    """One row per backend; the first one is the reference.

    Raises:
        NumbersError: logits of another shape than the reference's.
    """
    reference_NK = next(iter(logits.values()))
    rows = []
    for name, logits_NK in logits.items():
        if logits_NK.shape != reference_NK.shape:
            raise NumbersError(name, f"must give {reference_NK.shape} logits as the checkpoint", logits_NK.shape)
        counts = top_counts(logits_NK, label_N)
        agreement = float((logits_NK.argmax(1) == reference_NK.argmax(1)).mean())
        # NaN must not pass for agreement.
        difference = float(np.nan_to_num(np.abs(logits_NK - reference_NK), nan=np.inf).max())
        rows.append(Row(name, counts.total, counts.top1_accuracy, counts.top5_accuracy, agreement, difference))
    return rows


def format_table(rows: list[Row]) -> str:
    """The comparison for a terminal."""
    head = f"{'backend':<22}{'images':>8}{'top-1':>10}{'top-5':>10}{'agreement':>12}{'max |dlogit|':>15}"
    lines = [
        f"{row.backend:<22}{row.images:>8}{row.top1:>10.2%}{row.top5:>10.2%}{row.agreement:>12.2%}{row.max_difference:>15.2e}"
        for row in rows
    ]
    return "\n".join([head, *lines])


def _one_transform(config: Config, infos: list[ModelInfo]) -> EvalTransform:
    """The transform of the config, which the exported files must have been made for too."""
    transform = EvalTransform.from_config(config.data, config.model.image_size)
    for info in infos:
        if info.transform.transform() != transform:
            differing = {k: v for k, v in transform.as_dict().items() if getattr(info.transform, k) != v}
            raise ModelFileError(info.file, "was exported for other preprocessing than the config's", differing)
    return transform
