"""This project's process: the network, and for training the step that train.py runs.

Run by `src.benchmark.runner`, with the request as its one argument, in JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from src.benchmark.serving import reserve_stdout, serve, stay_on_cores
from src.device import open_device, prepare_libraries, versions
from src.schema import RunConfig


def main(request: dict[str, Any]) -> None:
    """Build what the request names and serve it."""
    answers = reserve_stdout()
    stay_on_cores(request["threads"])
    prepare_libraries(verbose=False)
    import mindspore as ms
    import numpy as np

    from src.benchmark.zoo_tnt import build_zoo_tnt
    from src.models import build_model, model_entry, num_parameters

    zoo = request["formulation"] == "zoo"
    open_device(RunConfig(graph_kernel=not zoo))
    # Nothing is dropped: the peers draw their masks in other ways, at other costs.
    sizes = {"drop_rate": 0.0, "attn_drop_rate": 0.0, "drop_path_rate": 0.0, **request["sizes"]}
    build = build_zoo_tnt if zoo else build_model
    net = build(request["arch"], image_size=request["image_size"], num_classes=request["num_classes"], **sizes)
    generator = np.random.default_rng(0)
    shape = (request["batch_size"], 3, request["image_size"], request["image_size"])
    image_BCYX = ms.Tensor(generator.standard_normal(shape, np.float32))
    step = (
        training(net, image_BCYX, request["num_classes"]) if request["mode"] == "train" else inference(net, image_BCYX)
    )
    row = {**model_entry(request["arch"]).sizes, **request["sizes"]}
    serve(
        answers,
        step,
        {
            "name": "the zoo's formulation" if zoo else "this project",
            "versions": versions(),
            "row": row,
            "num_parameters": num_parameters(net),
        },
    )


def inference(net: Any, image_BCYX: Any) -> Callable[[], None]:
    """One forward pass; reading the result waits for it."""
    net.set_train(False)

    def step() -> None:
        net(image_BCYX).asnumpy()

    return step


def training(net: Any, image_BCYX: Any, num_classes: int) -> Callable[[], None]:
    """Forward, soft-target cross entropy, backward, AdamW; the loss is there when the weights are updated."""
    import mindspore as ms
    import numpy as np

    from src.data.mixup import soft_targets
    from src.schema import OptimConfig
    from src.trainers.losses import SoftTargetCrossEntropy
    from src.trainers.optimizers import build_optimizer
    from src.trainers.train_step import Control, TrainStep

    batch_size = image_BCYX.shape[0]
    optimizer = build_optimizer(net, OptimConfig(weight_decay=0.05))
    train_step = TrainStep(net, SoftTargetCrossEntropy(), optimizer)
    target_BK = ms.Tensor(soft_targets(np.arange(batch_size) % num_classes, num_classes, 0.1))
    key_B = ms.Tensor(np.arange(batch_size, dtype=np.int32))
    rates_n = ms.Tensor(optimizer.rates(0, 1e-4))
    control_3 = ms.Tensor(np.array(Control(), np.float32))

    def step() -> None:
        loss, _, _ = train_step(image_BCYX, target_BK, key_B, rates_n, control_3)
        loss.asnumpy()

    return step


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
