"""The peer's process: torch eager, fused attention, fused AdamW. Imports torch and timm only.

Run by `src.benchmark.runner`, with the request as its one argument, in JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from src.benchmark.serving import reserve_stdout, serve, stay_on_cores


def main(request: dict[str, Any]) -> None:
    """Build what the request names and serve it."""
    answers = reserve_stdout()
    stay_on_cores(request["threads"])
    import torch

    from src.benchmark.peers import build_peer

    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    net, peer = build_peer(request["arch"], request["image_size"], request["num_classes"], request["sizes"])
    image_BCYX = torch.randn(request["batch_size"], 3, request["image_size"], request["image_size"])
    target_BK = torch.softmax(torch.randn(request["batch_size"], request["num_classes"]), -1)
    step = training(net, image_BCYX, target_BK) if request["mode"] == "train" else inference(net, image_BCYX)
    versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
    num_parameters = sum(p.numel() for p in net.parameters())
    serve(answers, step, {"name": peer, "versions": versions, "num_parameters": num_parameters})


def inference(net: Any, image_BCYX: Any) -> Callable[[], None]:
    """One forward pass."""
    import torch

    net.eval()

    def step() -> None:
        with torch.inference_mode():
            net(image_BCYX)

    return step


def training(net: Any, image_BCYX: Any, target_BK: Any) -> Callable[[], None]:
    """Forward, soft-target cross entropy, backward, AdamW."""
    import torch
    from torch.nn import functional as F

    net.train()
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = -(target_BK * F.log_softmax(net(image_BCYX), -1)).sum(-1).mean()
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
