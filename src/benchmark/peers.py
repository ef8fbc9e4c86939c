"""The peers' models, in torch: timm's own where it has the family, else the authors' architecture from torch.nn layers.

Shape letters: B batch, C image channels, Y X rows and columns, N tokens, D width, H heads, K width of one head.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FIRST_CONV_CHANNELS = 64


def build_peer(arch: str, image_size: int, num_classes: int, sizes: dict[str, Any]) -> tuple[nn.Module, str]:
    """The peer's network and its name in the table; ``sizes`` is the whole row in this project's names."""
    family = arch.split("_")[0]
    if family == "cct":
        return TorchCct(image_size=image_size, num_classes=num_classes, **sizes), f"torch {torch.__version__} (own CCT)"
    import timm

    constructor, arguments = _timm_arguments(arch, sizes)
    return constructor(img_size=image_size, num_classes=num_classes, **arguments), f"timm {timm.__version__}"


def _timm_arguments(arch: str, sizes: dict[str, Any]) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class of an arch in timm, and the row of sizes in its words."""
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.tnt import TNT
    from timm.models.twins import Twins
    from timm.models.vision_transformer import VisionTransformer

    sizes = {name: value for name, value in sizes.items() if not name.endswith("_rate")}
    if arch.startswith("tnt_"):
        sizes["num_heads_outer"], sizes["num_heads_inner"] = sizes.pop("num_heads"), sizes.pop("inner_num_heads")
        return TNT, sizes
    if "window_sizes" in sizes:
        sizes["wss"] = sizes.pop("window_sizes")
        return Twins, sizes
    if "_distilled_" in arch:
        return VisionTransformerDistilled, sizes
    if arch.startswith("deit3_"):
        return VisionTransformer, {**sizes, "no_embed_class": True, "init_values": 1e-6}
    return VisionTransformer, sizes


class Attention(nn.Module):
    """Self-attention through torch's fused operator."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        B, N, D = x_BND.shape
        q_BHNK, k_BHNK, v_BHNK = (
            self.qkv(x_BND).reshape(B, N, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)
        )
        out_BHNK = F.scaled_dot_product_attention(q_BHNK, k_BHNK, v_BHNK)
        return self.proj(out_BHNK.transpose(1, 2).reshape(B, N, D))


class EncoderLayer(nn.Module):
    """The CCT authors' layer, whose second norm lies in the residual stream."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.pre_norm, self.norm1 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attn = Attention(dim, num_heads)
        self.linear1, self.linear2 = nn.Linear(dim, int(dim * mlp_ratio)), nn.Linear(int(dim * mlp_ratio), dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = self.norm1(x_BND + self.self_attn(self.pre_norm(x_BND)))
        return x_BND + self.linear2(F.gelu(self.linear1(x_BND)))


class TorchCct(nn.Module):
    """CCT, https://arxiv.org/abs/2104.05704: ``(B, C, Y, X) -> (B, num_classes)``; timm has no such model."""

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        kernel_size: int,
        num_conv_layers: int,
        **rates: Any,
    ):
        super().__init__()
        stride, padding = max(1, kernel_size // 2 - 1), max(1, kernel_size // 2)
        channels = [3, *[_FIRST_CONV_CHANNELS] * (num_conv_layers - 1), embed_dim]
        self.tokenizer = nn.Sequential()
        for before, after in itertools.pairwise(channels):
            self.tokenizer.append(nn.Conv2d(before, after, kernel_size, stride, padding, bias=False))
            self.tokenizer.append(nn.ReLU())
            self.tokenizer.append(nn.MaxPool2d(3, 2, 1))
        with torch.no_grad():
            num_tokens = self.tokenizer(torch.zeros(1, 3, image_size, image_size)).flatten(2).shape[2]
        self.positional_emb = nn.Parameter(torch.zeros(1, num_tokens, embed_dim))
        nn.init.trunc_normal_(self.positional_emb, std=0.2)
        self.blocks = nn.Sequential(*[EncoderLayer(embed_dim, num_heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(embed_dim)
        self.attention_pool = nn.Linear(embed_dim, 1)
        self.fc = nn.Linear(embed_dim, num_classes)

    def forward(self, image_BCYX: Tensor) -> Tensor:
        x_BND = self.tokenizer(image_BCYX).flatten(2).transpose(1, 2) + self.positional_emb
        x_BND = self.norm(self.blocks(x_BND))
        weight_BN1 = F.softmax(self.attention_pool(x_BND), dim=1)
        return self.fc((weight_BN1.transpose(1, 2) @ x_BND).squeeze(1))
