"""Proof that every backend gives the checkpoint's answers: the same images through each, logits compared.

Shape letters: N images, K classes.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor

from src.config import require_built
from src.data.loader import EvalBatches, open_reader, print_left_out, read_eval
from src.data.sources import open_split
from src.data.subset import Subset, spread
from src.data.transforms import EvalTransform
from src.deploy.backends import Answers, Backend, CallBackend, mindir_backend, onnx_backend
from src.deploy.cpp_runner import CppRunner
from src.deploy.model_info import ModelInfo, verified_model_info, version_1_of
from src.deploy.results import read_logits
from src.deploy.runner_inputs import image_names
from src.device import open_device, package_version, versions
from src.errors import ConfigError, DataError, ModelFileError, NumbersError
from src.files import sha256, write_json
from src.metrics import top_counts
from src.models import build_configured_model, resolved
from src.schema import BUILT_FOR_EVALUATION, Config, VerifyConfig
from src.weights.class_count import with_class_count
from src.weights.load import given_weights, load_given_weights
from src.weights.numerics import with_numerics

CHECKPOINT, MINDIR, ONNX, RUNNER = "checkpoint", "MINDIR in MindSpore", "ONNX Runtime", "C++ runner (Lite)"
# Of a run that is over, maybe on a device.
RESULTS = "C++ runner's results"


@dataclass(frozen=True)
class Exported:
    """An exported file, and the backend that is to run it."""

    backend: str
    path: Path
    info: ModelInfo


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
        mean_difference: mean absolute difference of the logits.
        ms_per_image: milliseconds, the median over batches; None where it did not run here.
        quantization: how the weights are stored; none: as float32.
    """

    backend: str
    images: int
    top1: float
    top5: float
    agreement: float
    max_difference: float
    mean_difference: float
    ms_per_image: float | None
    quantization: str

    def is_accepted(self, limits: VerifyConfig) -> bool:
        """Whether it is as close as wanted; rounded weights are judged by the classes that they lead to."""
        is_close = self.quantization != "none" or self.max_difference <= limits.tolerance
        return is_close and self.agreement >= limits.min_agreement


def verify(config: Config) -> list[Row]:
    """Run images of the val split through the checkpoint and every form that is given; print and save the table.

    Raises:
        ConfigError: nothing to compare with, or a C++ runner that cannot be built here.
        NumbersError: a backend that differs by more than ``tolerance``, or names another class too often.
        DataError: missing images, or results of the C++ runner that are missing or damaged.
        ModelFileError: a file that is missing, damaged, or of another model.
    """
    require_built(config, BUILT_FOR_EVALUATION)
    config = resolved(with_class_count(config, by_images=True))
    limits = config.verify
    weights = given_weights(config.model)
    files = _exported_files(limits)
    transform = _one_transform(config, files)
    split = open_split(config.data, "val", config.model.num_classes)
    images = Subset(split, spread(split.labels, limits.num_images))
    batches = EvalBatches(images, transform, config.data.batch_size, on_bad_image=config.data.on_bad_image)
    answers, read_N = _computed(config, weights, files, batches)
    if limits.result_dir:
        answers[RESULTS] = Answers(_stored_logits(Path(limits.result_dir), images, read_N))
    rows = compare(answers, np.array(images.labels)[read_N])
    print(format_table(rows))
    bad = [row for row in rows if not row.is_accepted(limits)]
    facts = {"accepted": not bad, "images": len(read_N), "rows": [asdict(row) for row in rows]}
    write_json(Path(config.checkpoint.output_dir) / "verify.json", facts | _record(config, weights, files, answers))
    if bad:
        names = ", ".join(f"{row.backend} by {row.max_difference:.2e}, agreement {row.agreement:.2%}" for row in bad)
        rule = f"differs from the checkpoint by more than {limits.tolerance:g}, or in more than "
        raise NumbersError("verify", f"{rule}{1 - limits.min_agreement:.2%} of the first classes", names)
    print(f"=> verify success: {len(rows)} backends agree on {len(read_N)} images {_limits_of(rows, limits)}")
    return rows


def _exported_files(limits: VerifyConfig) -> list[Exported]:
    """What is to run, none of it damaged; a MINDIR of IR version 1 is for the C++ runner alone."""
    if not (limits.mindir_path or limits.onnx_path or limits.result_dir):
        raise ConfigError("verify", "needs something to compare with", None, "--mindir_path, --onnx_path, --result_dir")
    if limits.runner and not limits.mindir_path:
        raise ConfigError("runner", "needs mindir_path: the MINDIR to run, or the one beside it of IR version 1")
    files = []
    for backend, name in ((MINDIR, limits.mindir_path), (ONNX, limits.onnx_path)):
        if name:
            files.append(Exported(backend, Path(name), verified_model_info(Path(name))))
    if limits.runner:
        given = files[0]
        path = version_1_of(given.path, given.info)
        files.append(Exported(RUNNER, path, verified_model_info(path)))
        if path == given.path:
            files.remove(given)
    return files


def _one_transform(config: Config, files: list[Exported]) -> EvalTransform:
    """The transform of the config, which the exported files must have been made for too."""
    transform = EvalTransform.from_config(config.data, config.model.image_size)
    wanted = {**transform.as_dict(), "exif_orientation": config.data.exif_orientation}
    for one in files:
        differing = {key: value for key, value in wanted.items() if getattr(one.info.transform, key) != value}
        if differing:
            raise ModelFileError(one.path, "was exported for other preprocessing than the config's", differing)
    return transform


def _computed(
    config: Config, weights: Path, files: list[Exported], batches: EvalBatches
) -> tuple[dict[str, Answers], np.ndarray]:
    """The answers of the checkpoint and of every file, and the places of the images that could be read."""
    open_device(config.run)
    model = with_numerics(config.model, weights)
    net = build_configured_model(model)
    print(load_given_weights(net, model))
    backends: dict[str, Backend] = {CHECKPOINT: CallBackend(lambda image_BCYX: net(Tensor(image_BCYX)).asnumpy())}
    with tempfile.TemporaryDirectory() as folder:
        for one in files:
            backends[one.backend] = _open(one, config.verify, batches, Path(folder))
        with open_reader(config.data.num_parallel_workers, val=batches) as reader:
            read: list[np.ndarray] = []
            for step, batch in enumerate(read_eval(reader)):
                is_read_B = ~batch.is_padding_B
                read.append(step * batches.batch_size + np.flatnonzero(is_read_B))
                # Images first, then filling: where one cannot be read, a row in the middle is filling.
                image_BCYX = batch.image_BCYX[np.argsort(batch.is_padding_B, kind="stable")]
                for backend in backends.values():
                    backend.add(image_BCYX, int(np.count_nonzero(is_read_B)))
        print_left_out(reader.left_out)
        read_N = np.concatenate(read)
        if not len(read_N):
            raise DataError("on_bad_image", "no image of the split val can be read")
        return {name: backend.answers() for name, backend in backends.items()}, read_N


def _stored_logits(folder: Path, images: Subset, read_N: np.ndarray) -> np.ndarray:
    """The results that the C++ runner left of the images that were read; it has none of the others."""
    unreadable = {images.indices[place] for place in range(len(images))} - {images.indices[place] for place in read_N}
    places = [place for place in range(len(images.source)) if place not in unreadable]
    names = image_names(images.source)
    logits_MK = read_logits(folder, [names[place] for place in places])
    return logits_MK[np.searchsorted(places, np.array(images.indices)[read_N])]


def _open(one: Exported, settings: VerifyConfig, batches: EvalBatches, folder: Path) -> Backend:
    if one.backend == MINDIR:
        return mindir_backend(one.path, one.info)
    if one.backend == ONNX:
        return onnx_backend(one.path, one.info)
    runner = CppRunner(one.path, one.info, settings.runner_threads, folder)
    runner.reserve(len(batches.source), 3 * 4 * batches.transform.image_size**2)
    return runner


def compare(answers: dict[str, Answers], label_N: np.ndarray) -> list[Row]:
    """One row per backend; the first one is the reference.

    Raises:
        NumbersError: logits that are not finite, or of another shape than the reference's.
    """
    reference_NK = next(iter(answers.values())).logits_NK
    rows = []
    for name, given in answers.items():
        logits_NK = given.logits_NK
        if logits_NK.shape != reference_NK.shape:
            raise NumbersError(name, f"must give {reference_NK.shape} logits as the checkpoint", logits_NK.shape)
        wrong = np.count_nonzero(~np.isfinite(logits_NK).all(1))
        if wrong:
            raise NumbersError(name, "must give finite logits", f"others for {wrong} of {len(logits_NK)} images")
        counts = top_counts(logits_NK, label_N)
        difference_NK = np.abs(logits_NK.astype(np.float64) - reference_NK)
        row = Row(
            backend=name,
            images=counts.total,
            top1=counts.top1_accuracy,
            top5=counts.top5_accuracy,
            agreement=float((logits_NK.argmax(1) == reference_NK.argmax(1)).mean()),
            max_difference=float(difference_NK.max()),
            mean_difference=float(difference_NK.mean()),
            ms_per_image=given.ms_per_image,
            quantization=given.quantization,
        )
        rows.append(row)
    return rows


def format_table(rows: list[Row]) -> str:
    """The comparison for a terminal."""
    shares, differences = f"{'top-1':>9}{'top-5':>9}{'agreement':>11}", f"{'max |dlogit|':>14}{'mean |dlogit|':>15}"
    lines = [f"{'backend':<22}{'images':>7}{shares}{differences}{'ms/image':>10}"]
    for row in rows:
        shares = f"{row.top1:>9.2%}{row.top5:>9.2%}{row.agreement:>11.2%}"
        differences = f"{row.max_difference:>14.2e}{row.mean_difference:>15.2e}"
        time = "" if row.ms_per_image is None else f"{row.ms_per_image:>10.3f}"
        lines.append(f"{row.backend:<22}{row.images:>7}{shares}{differences}{time}")
    return "\n".join(lines)


def _limits_of(rows: list[Row], limits: VerifyConfig) -> str:
    """What was accepted, in words."""
    exact = f"within {limits.tolerance:g}"
    rounded = ", ".join(row.backend for row in rows if row.quantization != "none")
    return f"{exact}; {rounded}: on {limits.min_agreement:.2%} of the first classes or more" if rounded else exact


def _record(config: Config, weights: Path, files: list[Exported], answers: dict[str, Answers]) -> dict[str, Any]:
    """What the rows depend on, for programs that read ``verify.json``."""
    compared = [{"backend": CHECKPOINT, "file": str(weights), "sha256": sha256(weights)}]
    for one in files:
        facts = one.info.model_dump(include={"sha256", "file_format", "ir_version", "quantization"})
        compared.append({"backend": one.backend, "file": str(one.path), **facts, "batch_size": one.info.input.shape[0]})
    if RESULTS in answers:
        content = hashlib.sha256(answers[RESULTS].logits_NK.tobytes()).hexdigest()
        compared.append({"backend": RESULTS, "file": config.verify.result_dir, "logits_sha256": content})
    return {
        "files": compared,
        "data": {"set": config.data.set, "data_url": config.data.data_url, "split": "val"},
        "batch_size": config.data.batch_size,
        "tolerance": config.verify.tolerance,
        "min_agreement": config.verify.min_agreement,
        "versions": versions() | {"onnxruntime": package_version("onnxruntime") or "missing"},
    }
