"""Every size that timm publishes, with the recipe's weights: the logits are timm's."""

import json

import numpy as np
import pytest
from mindspore import Tensor

from src.models import MODELS, build_model
from tests import recipe
from tests.networks import GOLDENS, fill

# Every hundredth logit of both images, by timm 1.0.31 in float32.
LOGITS = json.loads((GOLDENS / "full_sizes.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("arch", LOGITS)
def test_logits_of_the_full_size_equal_timms(arch):
    net = fill(build_model(arch).set_train(False), "probe")
    logits_BK = net(Tensor(recipe.images(MODELS[arch].image_size))).asnumpy()
    # Both sides are float32, 6e-6 off at most; the weakest known mistake moves a logit by 9e-5.
    np.testing.assert_allclose(logits_BK[:, ::100], LOGITS[arch], rtol=0, atol=3e-5)
