"""Names of Hugging Face's transformers for ViT and DeiT.

``ViTForImageClassification``, and ``DeiTForImageClassificationWithTeacher`` for a distilled network. Files lack the
prefix where the bare backbone was saved.
"""

from __future__ import annotations

import re

from mindspore import nn

from src.weights.authors_names import official_names
from src.weights.naming import Naming, complete_origins, rule
from src.weights.resample import BICUBIC

# Published name -> the one inside of transformers 5.
_VERSION_5 = (
    (r"\.encoder\.layer\.(\d+)\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".layers.\1.attention.\2_proj."),
    (r"\.encoder\.layer\.(\d+)\.attention\.output\.dense\.", r".layers.\1.attention.o_proj."),
    (r"\.encoder\.layer\.(\d+)\.intermediate\.dense\.", r".layers.\1.mlp.fc1."),
    (r"\.encoder\.layer\.(\d+)\.output\.dense\.", r".layers.\1.mlp.fc2."),
    (r"\.encoder\.layer\.", r".layers."),
)


def huggingface_naming(net: nn.Cell) -> Naming | None:
    """The names for a ViT or DeiT; None for other networks."""
    official = {ours: theirs for theirs, ours in official_names(net).items()}
    distilled = "dist_token" in official
    prefix, head = ("deit", "cls_classifier") if distilled else ("vit", "classifier")
    origins = complete_origins(official, _rules(prefix, head))
    if origins is None:
        return None
    aliases = {}
    for name in (name for origin in origins.values() for name in origin.names):
        for alias in {name, _version_5(name)}:
            for other in (alias, alias.removeprefix(f"{prefix}.")):
                if other != name:
                    aliases[other] = name
    return Naming("huggingface", origins, aliases, BICUBIC)


def _version_5(name: str) -> str:
    for pattern, template in _VERSION_5:
        name = re.sub(pattern, template, name)
    return name


def _rules(prefix: str, head: str) -> tuple:
    embeddings, layer = f"{prefix}.embeddings", rf"{prefix}.encoder.layer.\1"
    return (
        rule(r"cls_token", f"{embeddings}.cls_token"),
        rule(r"dist_token", f"{embeddings}.distillation_token"),
        rule(r"pos_embed", f"{embeddings}.position_embeddings"),
        rule(r"patch_embed\.proj\.(weight|bias)", rf"{embeddings}.patch_embeddings.projection.\1"),
        rule(r"blocks\.(\d+)\.norm1\.(weight|bias)", rf"{layer}.layernorm_before.\2"),
        rule(r"blocks\.(\d+)\.norm2\.(weight|bias)", rf"{layer}.layernorm_after.\2"),
        rule(
            r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)",
            *(rf"{layer}.attention.attention.{part}.\2" for part in ("query", "key", "value")),
        ),
        rule(r"blocks\.(\d+)\.attn\.proj\.(weight|bias)", rf"{layer}.attention.output.dense.\2"),
        rule(r"blocks\.(\d+)\.mlp\.fc1\.(weight|bias)", rf"{layer}.intermediate.dense.\2"),
        rule(r"blocks\.(\d+)\.mlp\.fc2\.(weight|bias)", rf"{layer}.output.dense.\2"),
        rule(r"norm\.(weight|bias)", rf"{prefix}.layernorm.\1"),
        rule(r"head\.(weight|bias)", rf"{head}.\1"),
        rule(r"head_dist\.(weight|bias)", r"distillation_classifier.\1"),
    )
