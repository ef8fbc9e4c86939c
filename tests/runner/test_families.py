"""The C++ runner on the families that are not in every other test, and on full sizes: its logits are MindSpore's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from src.deploy.exporter import write_graph
from src.models import MODELS, build_model
from src.models.kernels import kernel_form
from src.schema import ExportConfig
from tests import recipe
from tests.networks import DEIT, DEIT3, PCPVT, SVT, TNT, Reference, fill
from tests.runner.cases import export, read, run

# Wide enough for Lite's layer norm, which computes small ones wrong on two threads.
WIDER = {"embed_dims": (64, 64, 64, 64), "num_heads": (1, 2, 2, 2)}
# One of each family as it is deployed.
FULL_SIZES = (
    "vit_tiny_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit3_small_patch16_224",
    "cct_14_7x2_224",
    "pcpvt_small_v0",
    "alt_gvt_small",
    "tnt_s_patch16_224",
)


def logits(runner: Path, tmp_path: Path, model: Path, image_BCYX: np.ndarray) -> np.ndarray:
    """What the runner gives for these images."""
    (tmp_path / "images").mkdir()
    names = tuple(map(str, range(len(image_BCYX))))
    for name, image_CYX in zip(names, image_BCYX, strict=True):
        image_CYX.tofile(tmp_path / "images" / f"{name}.bin")
    done = run(runner, tmp_path, model, tmp_path / "images")
    assert (done.returncode, done.stderr) == (0, "")
    return read(tmp_path / "result_Files", names)


@pytest.mark.parametrize(
    ("reference", "sizes"),
    [(DEIT, {}), (DEIT3, {}), (PCPVT, WIDER), (SVT, WIDER), (TNT, {})],
    ids=["deit", "deit3", "pcpvt", "svt", "tnt"],
)
def test_logits(runner, tmp_path, reference: Reference, sizes):
    net = fill(reference.build("export", **sizes), "probe")
    model = export(net, (1, 3, 224, 224), tmp_path / "net")
    image_BCYX = recipe.images(224)
    received_BK = logits(runner, tmp_path, model, image_BCYX)
    np.testing.assert_allclose(received_BK, net(Tensor(image_BCYX)).asnumpy(), rtol=0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("arch", FULL_SIZES)
def test_logits_of_full_sizes(runner, tmp_path, arch):
    size = MODELS[arch].image_size
    with kernel_form("export"):
        exported = fill(build_model(arch), "probe").set_train(False)
    write_graph(exported, (2, 3, size, size), tmp_path / "net.mindir", ExportConfig(ir_version=1))
    image_BCYX = recipe.images(size)
    received_BK = logits(runner, tmp_path, tmp_path / "net.mindir", image_BCYX)
    net = fill(build_model(arch), "probe").set_train(False)
    expected_BK = net(Tensor(image_BCYX)).asnumpy()
    np.testing.assert_allclose(received_BK, expected_BK, rtol=0, atol=1e-4)
    assert np.abs(expected_BK).max() > 0.1
