"""Data-efficient Image Transformers: DeiT, https://arxiv.org/abs/2012.12877; III, https://arxiv.org/abs/2204.07118.

Names and mathematics follow timm 1.0.31 ``deit`` and facebookresearch/deit. Without distillation DeiT is ViT's network,
trained in another way. ``compat="zoo"`` is what the model zoo's checkpoints were trained with: the tanh form of GELU.

Shape letters: B batch, C image channels, Y X image rows and columns, N tokens, D width, K classes.
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal, initializer

from src.models.kernels import Dense
from src.models.layers import Block, group_by_prefix
from src.models.vit import VisionTransformer

# DeiT: table 1. DeiT III: table 1 and the authors' models_v2.py.
_TINY = dict(embed_dim=192, depth=12, num_heads=3, mlp_ratio=4.0)
_SMALL = dict(embed_dim=384, depth=12, num_heads=6, mlp_ratio=4.0)
_MEDIUM = dict(embed_dim=512, depth=12, num_heads=8, mlp_ratio=4.0)
_BASE = dict(embed_dim=768, depth=12, num_heads=12, mlp_ratio=4.0)
_LARGE = dict(embed_dim=1024, depth=24, num_heads=16, mlp_ratio=4.0)
_HUGE = dict(embed_dim=1280, depth=32, num_heads=16, mlp_ratio=4.0)

SIZES = {
    "deit_tiny_patch16_224": dict(patch_size=16, **_TINY),
    "deit_small_patch16_224": dict(patch_size=16, **_SMALL),
    "deit_base_patch16_224": dict(patch_size=16, **_BASE),
    "deit_base_patch16_384": dict(patch_size=16, **_BASE),
    "deit_tiny_distilled_patch16_224": dict(patch_size=16, **_TINY),
    "deit_small_distilled_patch16_224": dict(patch_size=16, **_SMALL),
    "deit_base_distilled_patch16_224": dict(patch_size=16, **_BASE),
    "deit_base_distilled_patch16_384": dict(patch_size=16, **_BASE),
    "deit3_small_patch16_224": dict(patch_size=16, **_SMALL),
    "deit3_small_patch16_384": dict(patch_size=16, **_SMALL),
    "deit3_medium_patch16_224": dict(patch_size=16, **_MEDIUM),
    "deit3_base_patch16_224": dict(patch_size=16, **_BASE),
    "deit3_base_patch16_384": dict(patch_size=16, **_BASE),
    "deit3_large_patch16_224": dict(patch_size=16, **_LARGE),
    "deit3_large_patch16_384": dict(patch_size=16, **_LARGE),
    "deit3_huge_patch14_224": dict(patch_size=14, **_HUGE),
}


class DistilledVisionTransformer(VisionTransformer):
    """DeiT with a distillation token and a head of its own for it (section 4 of the paper).

    ``(B, C, Y, X) -> (B, K)``: the mean of both heads' logits; in training the pair of them, class first.
    """

    num_prefix_tokens = 2
    num_prefix_positions = 2

    def __init__(self, *, num_classes: int, embed_dim: int, **sizes):
        super().__init__(num_classes=num_classes, embed_dim=embed_dim, **sizes)
        self.dist_token = Parameter(initializer(TruncatedNormal(0.02), (1, 1, embed_dim)))
        self.head_dist = Dense(embed_dim, num_classes)

    def embed(self, image_BCYX: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Class token, distillation token, patch tokens and positions: (B, N, D)."""
        patch_BND = self.patch_embed(image_BCYX)
        token_12D = ops.concat((self.cls_token, self.dist_token), 1)
        return self.pos_drop(self.prefix(token_12D, patch_BND) + self.pos_embed, key_B)

    def construct(self, image_BCYX: Tensor, key_B: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        x_BND = self.encode(image_BCYX, key_B)
        class_BK, distilled_BK = self.head(x_BND[:, 0]), self.head_dist(x_BND[:, 1])
        if self.training:
            return class_BK, distilled_BK
        return (class_BK + distilled_BK) * 0.5

    def features(self, image_BCYX: Tensor) -> dict[str, Tensor]:
        """As ViT's; head holds the mean of both heads' logits."""
        named = super().features(image_BCYX)
        named["head"] = (named["head"] + self.head_dist(named["norm"][:, 1])) * 0.5
        return named

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more dimensions that are not decayed either."""
        return {"cls_token", "dist_token", "pos_embed"}

    def head_prefixes(self) -> tuple[str, ...]:
        """How the names of the heads' parameters start: what another number of classes replaces."""
        return ("head.", "head_dist.")

    def layer_groups(self) -> list[list[str]]:
        """Parameter names from the image to the logits: as ViT's, with both heads."""
        first, *blocks, last = super().layer_groups()
        tokens = group_by_prefix(self, ["dist_token", "head_dist."])
        return [first + tokens[0], *blocks, last + tokens[1]]


class LayerScale(nn.Cell):
    """A learned factor per channel of a branch, https://arxiv.org/abs/2103.17239 eq. 2; starts at the authors' 1e-4."""

    def __init__(self, dim: int):
        super().__init__()
        self.gamma = Parameter(initializer(1e-4, (dim,)))

    def construct(self, x_BND: Tensor) -> Tensor:
        return x_BND * self.gamma


class LayerScaleBlock(Block):
    """ViT's block with scaled branches."""

    def __init__(self, attn: nn.Cell, dim: int, mlp_ratio: float, **rates):
        super().__init__(attn, dim, mlp_ratio, **rates)
        self.ls1, self.ls2 = LayerScale(dim), LayerScale(dim)

    def construct(self, x_BND: Tensor, key_B: Tensor | None = None) -> Tensor:
        x_BND = x_BND + self.drop_path1(self.ls1(self.attn(self.norm1(x_BND), key_B)), key_B)
        return x_BND + self.drop_path2(self.ls2(self.mlp(self.norm2(x_BND), key_B)), key_B)


class DeiT3(VisionTransformer):
    """DeiT III: layer scale, positions for the patches alone, the same stochastic depth in every block."""

    block_class = LayerScaleBlock
    num_prefix_positions = 0

    @staticmethod
    def drop_path_rates(last: float, depth: int) -> list[float]:
        """Stochastic depth of each block."""
        return [last] * depth

    def embed(self, image_BCYX: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Class token, then patch tokens with positions: (B, N, D)."""
        patch_BND = self.patch_embed(image_BCYX) + self.pos_embed
        return self.pos_drop(self.prefix(self.cls_token, patch_BND), key_B)
