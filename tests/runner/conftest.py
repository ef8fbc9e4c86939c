"""Small networks of both families, exported once for all tests of the runner."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor

from src.models import build_model
from src.models.kernels import kernel_form
from tests.runner.cases import IMAGES, MODELS, Case, export


@pytest.fixture(scope="session")
def cases(tmp_path_factory) -> dict[tuple[str, int], Case]:
    """Small networks of both families for batches of 1 and 4, and five images in folders of several kinds."""
    root = tmp_path_factory.mktemp("cases with blanks")
    folder = root / "images"
    rng = np.random.default_rng(0)
    image_NCYX = rng.standard_normal((5, 3, 32, 32)).astype(np.float32)
    for name, image_CYX in zip(IMAGES, image_NCYX, strict=True):
        path = folder / f"{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        image_CYX.tofile(path)
    found = {}
    for arch, sizes in MODELS.items():
        with kernel_form("export"):
            net = build_model(arch, num_classes=7, **sizes).set_train(False)
        for parameter in net.get_parameters():
            parameter.set_data(Tensor(rng.normal(0, 0.1, parameter.shape).astype(np.float32) + (parameter.ndim == 1)))
        logits_NK = net(Tensor(image_NCYX)).asnumpy()
        for batch in (1, 4):
            found[arch, batch] = Case(export(net, (batch, 3, 32, 32), root / f"{arch}_{batch}"), folder, logits_NK)
    return found


@pytest.fixture
def case(cases) -> Case:
    return cases["cct_2_3x2_32", 1]
