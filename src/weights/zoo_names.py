"""Names of the model zoo's checkpoints: q, k and v apart, otherwise each family in its own way.

Patterns are written for our names, since the zoo spells norms as we do.
"""

from __future__ import annotations

import re

from mindspore import nn

from src.weights.authors_names import TNT_PYTORCH
from src.weights.naming import Naming, origins_by_rules, rule

# Fused projections in the order of their rows.
_SPLIT = (
    rule(r"(.*attn)\.qkv\.(weight|bias)", r"\1.q.\2", r"\1.k.\2", r"\1.v.\2"),
    rule(r"(.*attn)\.kv\.(weight|bias)", r"\1.k.\2", r"\1.v.\2"),
)
_CCT = (*_SPLIT, rule(r"(.*)\.linear([12])\.(weight|bias)", r"\1.fc\2.\3"))

_VIT_LAYER = r"transformer.encoder.layer.\1"
_VIT = (
    rule(r"cls_token", "transformer.embeddings.cls_token"),
    rule(r"pos_embed", "transformer.embeddings.position_embeddings"),
    rule(r"patch_embed\.proj\.(weight|bias)", r"transformer.embeddings.patch_embeddings.\1"),
    rule(r"blocks\.(\d+)\.norm1\.(gamma|beta)", rf"{_VIT_LAYER}.attention_norm.\2"),
    rule(r"blocks\.(\d+)\.norm2\.(gamma|beta)", rf"{_VIT_LAYER}.ffn_norm.\2"),
    rule(
        r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)",
        *(rf"{_VIT_LAYER}.attn.{part}.\2" for part in ("query", "key", "value")),
    ),
    rule(r"blocks\.(\d+)\.attn\.proj\.(weight|bias)", rf"{_VIT_LAYER}.attn.out.\2"),
    rule(r"blocks\.(\d+)\.mlp\.fc([12])\.(weight|bias)", rf"{_VIT_LAYER}.ffn.fc\2.\3"),
    rule(r"norm\.(gamma|beta)", r"transformer.encoder.encoder_norm.\1"),
)
# What its tokens are called in code, where nothing has given them the name of their place.
_VIT_TOKENS = {
    f"{prefix}{token}": f"transformer.embeddings.{name}"
    for prefix in ("", "transformer.embeddings.")
    for token, name in (("q1", "position_embeddings"), ("q2", "cls_token"))
}


_TNT = (
    # The zoo's layers without a bias.
    rule(r"(?:pixel_embed\.proj|proj|head|blocks\.\d+\.(?:attn_in|attn_out)\.proj|.*\.mlp(?:_in)?\.fc2)\.bias"),
    rule(r"norm2_proj\.(gamma|beta)", r"proj_norm2_tnt.\1"),
    rule(r"(blocks\.\d+)\.attn_in\.qk\.weight", r"\1.inner_attn.q.weight", r"\1.inner_attn.k.weight"),
    rule(r"(blocks\.\d+)\.attn_out\.qk\.weight", r"\1.outer_attn.q.weight", r"\1.outer_attn.k.weight"),
    *TNT_PYTORCH,
)


def zoo_namings(net: nn.Cell) -> list[Naming]:
    """The zoo's names for a network; two of them where its ViT and its DeiT are the same network."""
    names = {name: name for name, _ in net.parameters_and_names()}
    if "classifier.positional_emb" in names:
        return [Naming("zoo", origins_by_rules(names, _CCT))]
    if "patch_embeds.0.proj.weight" in names:
        origins = origins_by_rules(names, _SPLIT)
        aliases = {_bare(theirs): theirs for origin in origins.values() for theirs in origin.names}
        return [Naming("zoo", origins, {bare: name for bare, name in aliases.items() if bare != name})]
    if "patch_pos" in names:
        return [Naming("zoo", origins_by_rules(names, _TNT))]
    if "pos_embed" not in names or "blocks.0.ls1.gamma" in names:
        return []
    split = Naming("zoo", origins_by_rules(names, _SPLIT))
    if "dist_token" in names:
        return [split]
    return [split, Naming("zoo ViT", origins_by_rules(names, _VIT), _VIT_TOKENS)]


def _bare(name: str) -> str:
    """How the zoo's Twins calls a parameter when nothing was wrapped around it: its lists lose their own names."""
    for pattern, template in (
        (r"patch_embeds\.(\d+)\.(.+)", r"\1.\2"),
        (r"blocks\.0\.(\d+)\.(.+)", r"0.\1.\2"),
        (r"blocks\.(\d+)\.(\d+)\.(.+)", r"0.\1.\2.\3"),
    ):
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(template)
    return name
