"""ONNX Runtime's process: a turn of calls on the file that `src.benchmark.mindspore_worker` wrote.

Run by `src.benchmark.deploy_runner`, with the request as its one argument, in JSON.

Shape letters: N images, B of a call, C channels, Y X rows and columns.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from src.benchmark.serving import CallTimer, reserve_stdout, serve, stay_on_cores


def main(request: dict[str, Any]) -> None:
    """Open the file, leave its logits of all images in ``onnx.npy``, serve it."""
    answers = reserve_stdout()
    stay_on_cores(request["threads"])
    import onnxruntime

    folder = Path(request["folder"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    session = onnxruntime.InferenceSession(folder / "net.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    shape = (request["batch_size"], 3, request["image_size"], request["image_size"])
    files = sorted((folder / "images").glob("*.bin"))
    image_NCYX = np.stack([np.fromfile(file, np.float32) for file in files]).reshape(-1, *shape[1:])
    parts = np.split(image_NCYX, request["calls"])

    def infer(image_BCYX: np.ndarray) -> np.ndarray:
        return session.run(None, {name: image_BCYX})[0]

    np.save(folder / "onnx.npy", np.concatenate([infer(part) for part in parts]))
    timer = CallTimer(infer, parts, request["batch_size"])
    serve(answers, timer.turn, {"versions": {"onnxruntime": onnxruntime.__version__}}, timer.report)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
