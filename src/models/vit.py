"""Vision Transformer (ViT), https://arxiv.org/abs/2010.11929.

Names and mathematics follow timm 1.0.31 ``vision_transformer``; the JAX original is google-research/vision_transformer.
``compat="zoo"`` is what the model zoo's checkpoints were trained with: the tanh form of GELU.

Shape letters: B batch, C image channels, Y X image rows and columns, N tokens, D width.
"""

from __future__ import annotations

import itertools

from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import Normal, TruncatedNormal, initializer

from src.models.kernels import Dense, LayerNorm
from src.models.layers import (
    Attention,
    Block,
    Dropout,
    PatchEmbed,
    PrefixTokens,
    attention_products,
    group_by_prefix,
    linear_rates,
)

# Table 1 of the paper; tiny and small are DeiT's, https://arxiv.org/abs/2012.12877 table 1.
_TINY = dict(embed_dim=192, depth=12, num_heads=3, mlp_ratio=4.0)
_SMALL = dict(embed_dim=384, depth=12, num_heads=6, mlp_ratio=4.0)
_BASE = dict(embed_dim=768, depth=12, num_heads=12, mlp_ratio=4.0)
_LARGE = dict(embed_dim=1024, depth=24, num_heads=16, mlp_ratio=4.0)
_HUGE = dict(embed_dim=1280, depth=32, num_heads=16, mlp_ratio=4.0)

SIZES = {
    "vit_tiny_patch16_224": dict(patch_size=16, **_TINY),
    "vit_tiny_patch16_384": dict(patch_size=16, **_TINY),
    "vit_small_patch16_224": dict(patch_size=16, **_SMALL),
    "vit_small_patch16_384": dict(patch_size=16, **_SMALL),
    "vit_small_patch32_224": dict(patch_size=32, **_SMALL),
    "vit_small_patch32_384": dict(patch_size=32, **_SMALL),
    "vit_base_patch16_224": dict(patch_size=16, **_BASE),
    "vit_base_patch16_384": dict(patch_size=16, **_BASE),
    "vit_base_patch32_224": dict(patch_size=32, **_BASE),
    "vit_base_patch32_384": dict(patch_size=32, **_BASE),
    "vit_large_patch16_224": dict(patch_size=16, **_LARGE),
    "vit_large_patch16_384": dict(patch_size=16, **_LARGE),
    "vit_large_patch32_224": dict(patch_size=32, **_LARGE),
    "vit_large_patch32_384": dict(patch_size=32, **_LARGE),
    "vit_huge_patch14_224": dict(patch_size=14, **_HUGE),
    # The zoo's `testing`: one of everything.
    "vit_testing": dict(patch_size=16, embed_dim=1, depth=1, num_heads=1, mlp_ratio=1.0),
}
ALIASES = {
    "ViT-B_16": "vit_base_patch16_224",
    "ViT-B_32": "vit_base_patch32_224",
    "ViT-L_16": "vit_large_patch16_224",
    "ViT-L_32": "vit_large_patch32_224",
    "ViT-H_14": "vit_huge_patch14_224",
    "testing": "vit_testing",
}


class VisionTransformer(nn.Cell):
    """ViT classifier with a class token and learned position embeddings: ``(B, C, Y, X) -> (B, num_classes)``."""

    block_class = Block
    # Tokens, and position embeddings, besides those of the patches.
    num_prefix_tokens = 1
    num_prefix_positions = 1

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        in_channels: int,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        compat: str = "official",
    ):
        super().__init__()
        self.patch_embed = PatchEmbed(image_size, in_channels, embed_dim, patch_size)
        self.prefix = PrefixTokens(self.num_prefix_tokens, self.patch_embed.num_patches)
        self.cls_token = Parameter(initializer(Normal(1e-6), (1, 1, embed_dim)))
        num_positions = self.patch_embed.num_patches + self.num_prefix_positions
        self.pos_embed = Parameter(initializer(TruncatedNormal(0.02), (1, num_positions, embed_dim)))
        self.pos_drop = Dropout(drop_rate, salt=0)
        self.blocks = nn.CellList(
            [
                self.block_class(
                    Attention(embed_dim, num_heads, True, attn_drop_rate, drop_rate, salt),
                    embed_dim,
                    mlp_ratio,
                    tanh_gelu=compat == "zoo",
                    drop_rate=drop_rate,
                    drop_path_rate=rate,
                    salt=salt,
                )
                for salt, rate in zip(itertools.count(16, 16), self.drop_path_rates(drop_path_rate, depth))
            ]
        )
        self.norm = LayerNorm(embed_dim, 1e-6)
        self.head = Dense(embed_dim, num_classes)

    @staticmethod
    def drop_path_rates(last: float, depth: int) -> list[float]:
        """Stochastic depth of each block."""
        return linear_rates(last, depth)

    def embed(self, image_BCYX: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Class token, patch tokens and positions: (B, N, D)."""
        patch_BND = self.patch_embed(image_BCYX)
        return self.pos_drop(self.prefix(self.cls_token, patch_BND) + self.pos_embed, key_B)

    def encode(self, image_BCYX: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Normalised tokens behind the last block: (B, N, D)."""
        x_BND = self.embed(image_BCYX, key_B)
        for block in self.blocks:
            x_BND = block(x_BND, key_B)
        return self.norm(x_BND)

    def construct(self, image_BCYX: Tensor, key_B: Tensor | None = None) -> Tensor:
        # Every token is normalised, then one is picked: Lite 2.0 gets a norm of 2 to 7 rows wrong.
        return self.head(self.encode(image_BCYX, key_B)[:, 0])

    def features(self, image_BCYX: Tensor) -> dict[str, Tensor]:
        """Named intermediates in timm's spelling: patch_embed, blocks.i and norm, each (B, N, D), then head."""
        named = {"patch_embed": self.patch_embed(image_BCYX)}
        x_BND = self.embed(image_BCYX)
        for index, block in enumerate(self.blocks):
            named[f"blocks.{index}"] = x_BND = block(x_BND)
        named["norm"] = x_BND = self.norm(x_BND)
        named["head"] = self.head(x_BND[:, 0])
        return named

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more dimensions that are not decayed either."""
        return {"cls_token", "pos_embed"}

    def decayed_by_zoo(self, name: str) -> bool:
        """Whether the zoo's DeiT decays a parameter; its ViT decays all of them."""
        return name.endswith(".weight")

    def head_prefixes(self) -> tuple[str, ...]:
        """How the names of the head's parameters start: what another number of classes replaces."""
        return ("head.",)

    def layer_groups(self) -> list[list[str]]:
        """Parameter names from the image to the logits: embedding, one group a block, the last with the norm, head."""
        *blocks, last = [f"blocks.{index}." for index in range(len(self.blocks))]
        stem = ("cls_token", "pos_embed", "patch_embed.")
        return group_by_prefix(self, [stem, *blocks, (last, "norm."), ("head.",)])

    def applications(self) -> tuple[dict[str, int], int]:
        """How often an image meets each weight, by the start of its name; multiply-accumulates of attention beside."""
        num_patches, D = self.patch_embed.num_patches, self.cls_token.shape[-1]
        N = num_patches + self.num_prefix_tokens
        places = {"patch_embed": num_patches, "blocks": N, "head": 1}
        return places, len(self.blocks) * attention_products(N, N, D)
