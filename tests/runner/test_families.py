"""The C++ runner on the families that are not in every other test: its logits are MindSpore's."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor

from tests import recipe
from tests.networks import DEIT, DEIT3, PCPVT, SVT, TNT, Reference, fill
from tests.runner.cases import export, read, run

# Wide enough for Lite's layer norm, which computes small ones wrong on two threads.
WIDER = {"embed_dims": (64, 64, 64, 64), "num_heads": (1, 2, 2, 2)}


@pytest.mark.parametrize(
    ("reference", "sizes"),
    [(DEIT, {}), (DEIT3, {}), (PCPVT, WIDER), (SVT, WIDER), (TNT, {})],
    ids=["deit", "deit3", "pcpvt", "svt", "tnt"],
)
def test_logits(runner, tmp_path, reference: Reference, sizes):
    net = fill(reference.build("export", **sizes), "probe")
    images = recipe.images(224)
    model = export(net, (1, 3, 224, 224), tmp_path / "net")
    (tmp_path / "images").mkdir()
    for index, image in enumerate(images):
        image.tofile(tmp_path / "images" / f"{index}.bin")
    done = run(runner, tmp_path, model, tmp_path / "images")
    assert (done.returncode, done.stderr) == (0, "")
    logits_BK = net(Tensor(images)).asnumpy()
    np.testing.assert_allclose(read(tmp_path / "result_Files", ("0", "1")), logits_BK, rtol=0, atol=2e-5)
