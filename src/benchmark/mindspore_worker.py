"""MindSpore's process: makes a network of seeded weights, exports it for the other sides, and infers with it.

Run by `src.benchmark.deploy_runner`, with the request as its one argument, in JSON. Into the request's folder go
``net.mindir`` (IR version 1), ``net.onnx``, ``images/*.bin`` and its logits of them, ``mindspore.npy``.

Shape letters: N images, B of a call, C channels, Y X rows and columns.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from src.benchmark.serving import CallTimer, reserve_stdout, serve, stay_on_cores
from src.device import open_device, prepare_libraries, versions
from src.schema import ExportConfig, RunConfig


def main(request: dict[str, Any]) -> None:
    """Build what the request names, write it, serve it."""
    answers = reserve_stdout()
    stay_on_cores(request["threads"])
    prepare_libraries(verbose=False)
    from mindspore import Tensor

    open_device(RunConfig())
    folder, batch_size = Path(request["folder"]), request["batch_size"]
    net = build(request)
    shape = (batch_size, 3, request["image_size"], request["image_size"])
    for name, export in (
        ("net.mindir", ExportConfig(ir_version=1)),
        ("net.onnx", ExportConfig(file_format="ONNX")),
    ):
        export_copy(net, request, shape, folder / name, export)
    image_NCYX = np.random.default_rng(0).standard_normal((request["calls"] * batch_size, *shape[1:]), np.float32)
    (folder / "images").mkdir()
    for index, image_CYX in enumerate(image_NCYX):
        image_CYX.tofile(folder / "images" / f"{index:04d}.bin")
    parts = [Tensor(image_BCYX) for image_BCYX in np.split(image_NCYX, request["calls"])]
    np.save(folder / "mindspore.npy", np.concatenate([net(part).asnumpy() for part in parts]))
    timer = CallTimer(lambda part: net(part).asnumpy(), parts, batch_size)
    serve(answers, timer.turn, {"versions": versions()}, timer.report)


def build(request: dict[str, Any]) -> Any:
    """The network, in the form that suits the context."""
    from src.models import build_model

    names = ("arch", "image_size", "num_classes")
    return build_model(**{name: request[name] for name in names}, **request["sizes"]).set_train(False)


def export_copy(net: Any, request: dict[str, Any], shape: tuple[int, ...], target: Path, export: ExportConfig) -> None:
    """Write a network of the same weights in the export form; folding is on."""
    from src.deploy.exporter import write_graph
    from src.models.kernels import kernel_form

    with kernel_form("export"):
        copy = build(request)
    weights = dict(net.parameters_and_names())
    for name, parameter in copy.parameters_and_names():
        parameter.set_data(weights[name])
    write_graph(copy, shape, target, export)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
