"""A description of an exported model, as a test needs it."""

from src.data.transforms import EvalTransform
from src.deploy.model_info import InputInfo, ModelInfo, TransformInfo

TRANSFORM = EvalTransform(16, 0.875, "bilinear", "shorter", (0.5, 0.4, 0.3), (0.2, 0.2, 0.3))


def description(**facts: object) -> ModelInfo:
    """Of a small ViT of IR version 1, but for what is given."""
    usual = dict(
        arch="vit_tiny_patch16_224",
        file="x.mindir",
        bytes=1,
        sha256="0",
        file_format="MINDIR",
        ir_version=1,
        num_classes=3,
        class_names=None,
        input=InputInfo(name="image_BCYX", shape=(1, 3, 16, 16), dtype="float32"),
        transform=TransformInfo.of(TRANSFORM),
        source="x.ckpt",
        source_sha256="0",
        versions={},
        config={},
    )
    return ModelInfo(**{**usual, **facts})
