"""What predicts: a checkpoint, or an exported file, with the transform and the class names of either.

Shape letters: B batch, C image channels, Y X rows and columns, K classes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from src.config import require_built
from src.data.sources import open_split
from src.data.transforms import EvalTransform
from src.deploy.backends import open_mindir, open_onnx
from src.deploy.model_info import verified_model_info
from src.device import open_device
from src.errors import ConfigError, DataError, ModelFileError, NumbersError
from src.models import MODELS, build_configured_model, resolved
from src.report.attention import attention_maps
from src.report.predict_settings import PredictConfig
from src.schema import BUILT_FOR_EVALUATION, Config
from src.weights.class_count import with_class_count
from src.weights.load import given_weights, load_given_weights
from src.weights.manifest import Manifest, verified_manifest
from src.weights.numerics import with_numerics


@dataclass(frozen=True)
class Predictor:
    """A network and what its images need.

    Attributes:
        arch: name of the network.
        file: its weights, or the exported file.
        logits: (B, C, Y, X) -> (B, K).
        transform: of one image, the one of eval.py.
        exif_orientation: turn images as their cameras say.
        class_names: in the order of the logits.
        net: the network; None where it is an exported file.
    """

    arch: str
    file: Path
    logits: Callable[[np.ndarray], np.ndarray]
    transform: EvalTransform
    exif_orientation: bool
    class_names: tuple[str, ...]
    net: nn.Cell | None = None

    def probabilities(self, image_BCYX: np.ndarray, tta: str = "none") -> np.ndarray:
        """Soft-max of the logits in float64: (B, K).

        With ``flip`` the mean over an image and its mirror image, of probabilities as AlexNet's authors took it over
        crops (section 4.1 of their paper of 2012): each view has the same say, and the result is a distribution by
        itself. In a mean of logits a single view that rules a class out would decide alone.

        Raises:
            NumbersError: a logit that is not finite.
        """
        if tta == "flip":
            mirrored_BCYX = np.ascontiguousarray(image_BCYX[..., ::-1])
            return (self.probabilities(image_BCYX) + self.probabilities(mirrored_BCYX)) / 2
        logits_BK = self.logits(image_BCYX).astype(np.float64)
        if not np.isfinite(logits_BK).all():
            raise NumbersError(self.file, "the network gives values that are not finite")
        power_BK = np.exp(logits_BK - logits_BK.max(1, keepdims=True))
        return power_BK / power_BK.sum(1, keepdims=True)

    def attention(self, image_BCYX: np.ndarray, inner: bool) -> dict[str, np.ndarray]:
        """`attention_maps` by family and map, such as ``cct_sequence_pool``."""
        maps = attention_maps(self.net, image_BCYX, inner=inner)
        return {f"{MODELS[self.arch].family}_{name}": map_BYX for name, map_BYX in maps.items()}


def open_predictor(config: Config, settings: PredictConfig) -> Predictor:
    """What a command line names.

    Raises:
        ModelFileError: a file that is missing, damaged, of another model or made for another transform.
    """
    require_built(config, BUILT_FOR_EVALUATION)
    config = resolved(with_class_count(config))
    open_device(config.run)
    exported = settings.mindir or settings.onnx
    return _of_checkpoint(config) if exported is None else _of_exported(config, Path(exported), settings)


def _of_checkpoint(config: Config) -> Predictor:
    weights = given_weights(config.model)
    manifest = verified_manifest(weights)
    model = with_numerics(config.model, weights)
    net = build_configured_model(model)
    print(load_given_weights(net, model))
    net.set_train(False)
    return Predictor(
        model.arch,
        weights,
        lambda image_BCYX: net(Tensor(image_BCYX)).asnumpy(),
        EvalTransform.from_config(config.data, model.image_size),
        config.data.exif_orientation,
        _class_names(config, manifest),
        net,
    )


def _of_exported(config: Config, file: Path, settings: PredictConfig) -> Predictor:
    info = verified_model_info(file)
    transform = EvalTransform.from_config(config.data, config.model.image_size)
    if (info.arch, info.transform.transform()) != (config.model.arch, transform):
        wanted = {"arch": config.model.arch, **transform.as_dict()}
        made_for = {"arch": info.arch, **info.transform.transform().as_dict()}
        differing = {key: value for key, value in wanted.items() if value != made_for[key]}
        raise ModelFileError(file, "was exported for another network or transform, leave these keys out", differing)
    compute = open_mindir(file, info) if settings.mindir else open_onnx(file, info)
    names = tuple(info.class_names or _numbers(info.num_classes))
    return Predictor(info.arch, file, compute, transform, config.data.exif_orientation, names)


def _class_names(config: Config, manifest: Manifest | None) -> tuple[str, ...]:
    """Those of the weights' manifest, else of the data set that the configuration names, else numbers."""
    if manifest is not None:
        return tuple(manifest.class_names)
    data, num_classes = config.data, config.model.num_classes
    if Path(data.data_url).exists():
        with contextlib.suppress(DataError, ConfigError):
            images = open_split(data, "val", num_classes)
            print(f"=> class names of {images.root}")
            return images.class_names
    return _numbers(num_classes)


def _numbers(num_classes: int) -> tuple[str, ...]:
    print("warning: no class names lie beside the weights: classes are called by their numbers", file=sys.stderr)
    return tuple(map(str, range(num_classes)))
