"""Twins, https://arxiv.org/abs/2104.13840: Twins-PCPVT and Twins-SVT.

Names and mathematics follow Meituan-AutoML/Twins and timm 1.0.31 ``twins``: four stages of shrinking maps, a positional
convolution behind the first block of each, attention to a subsampled map; SVT's even blocks attend inside of windows.
``compat="zoo"`` is what the model zoo's checkpoints were trained with: the tanh form of GELU.

Shape letters: B batch, C image channels, Y X rows and columns, N tokens, M subsampled tokens, D width, W side of a
window.
"""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, nn, ops

from src.models.convolution import DepthwiseConv2d, MapBorder, TokenConv2d
from src.models.kernels import Dense, LayerNorm, PatchConv2d
from src.models.layers import (
    Attention,
    Block,
    MultiHeadAttention,
    attention_products,
    group_by_prefix,
    linear_rates,
)

# Tables 1 and 2 of the paper's appendix.
_PCPVT = dict(
    embed_dims=(64, 128, 320, 512),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8.0, 8.0, 4.0, 4.0),
    sr_ratios=(8, 4, 2, 1),
    window_sizes=None,
)
_SVT = dict(mlp_ratios=(4.0, 4.0, 4.0, 4.0), sr_ratios=(8, 4, 2, 1), window_sizes=(7, 7, 7, 7))

SIZES = {
    "pcpvt_small_v0": dict(depths=(3, 4, 6, 3), **_PCPVT),
    "pcpvt_base_v0": dict(depths=(3, 4, 18, 3), **_PCPVT),
    "pcpvt_large_v0": dict(depths=(3, 8, 27, 3), **_PCPVT),
    "alt_gvt_small": dict(depths=(2, 2, 10, 4), embed_dims=(64, 128, 256, 512), num_heads=(2, 4, 8, 16), **_SVT),
    "alt_gvt_base": dict(depths=(2, 2, 18, 2), embed_dims=(96, 192, 384, 768), num_heads=(3, 6, 12, 24), **_SVT),
    "alt_gvt_large": dict(depths=(2, 2, 18, 2), embed_dims=(128, 256, 512, 1024), num_heads=(4, 8, 16, 32), **_SVT),
}
# timm's names.
ALIASES = {
    "twins_pcpvt_small": "pcpvt_small_v0",
    "twins_pcpvt_base": "pcpvt_base_v0",
    "twins_pcpvt_large": "pcpvt_large_v0",
    "twins_svt_small": "alt_gvt_small",
    "twins_svt_base": "alt_gvt_base",
    "twins_svt_large": "alt_gvt_large",
}
_FIRST_PATCH, _NEXT_PATCH = 4, 2


class PatchEmbed(nn.Cell):
    """Image, or the tokens of the stage before, to normalised tokens (B, N, D)."""

    def __init__(self, proj: nn.Cell, embed_dim: int):
        super().__init__()
        self.proj = proj
        self.norm = LayerNorm(embed_dim, 1e-5)

    def construct(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class PosConv(nn.Cell):
    """Positional encoding generator, https://arxiv.org/abs/2102.10882: ``x + depthwise(x)`` on tokens of a map."""

    def __init__(self, dim: int, side: int):
        super().__init__()
        self.proj = nn.CellList([DepthwiseConv2d(dim, side)])

    def construct(self, x_BND: Tensor) -> Tensor:
        return self.proj[0](x_BND) + x_BND


class GlobalAttention(MultiHeadAttention):
    """Attention of all tokens to a map subsampled by a strided convolution (PVT's; the paper's GSA)."""

    def __init__(
        self, *, dim: int, num_heads: int, sr_ratio: int, side: int, attn_drop_rate: float, drop_rate: float, salt: int
    ):
        super().__init__(dim, num_heads, attn_drop_rate, drop_rate, salt)
        self.sr_ratio = sr_ratio
        self.q, self.kv = Dense(dim, dim), Dense(dim, 2 * dim)
        if sr_ratio > 1:
            self.sr = TokenConv2d(dim, dim, sr_ratio, side)
            self.norm = LayerNorm(dim, 1e-5)
        self.proj = Dense(dim, dim)
        self.split = ops.Split(2, 2)

    def construct(self, x_BND: Tensor, key_B: Tensor | None = None) -> Tensor:
        source_BMD = self.norm(self.sr(x_BND)) if self.sr_ratio > 1 else x_BND
        k_BMD, v_BMD = self.split(self.kv(source_BMD))
        return self.attend(self.q(x_BND), k_BMD, v_BMD, key_B)


class LocalAttention(Attention):
    """Attention inside of windows (the paper's LSA). A map that they do not fill gets zero tokens below and right.

    As in the authors' default form those tokens take part: nothing masks them.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        window_size: int,
        side: int,
        attn_drop_rate: float,
        drop_rate: float,
        salt: int,
    ):
        super().__init__(dim, num_heads, True, attn_drop_rate, drop_rate, salt, window_size)
        self.side, self.window_size = side, window_size
        self.border = -side % window_size
        self.map_border = MapBorder(side, self.border)

    def construct(self, x_BND: Tensor, key_B: Tensor | None = None) -> Tensor:
        if not self.border:
            return super().construct(x_BND, key_B)
        _, N, D = x_BND.shape
        Y, padded = self.side, self.side + self.border
        map_BYXD = self.map_border.add(x_BND.reshape(-1, Y, Y, D))
        out_BND = super().construct(map_BYXD.reshape(-1, padded * padded, D), key_B)
        return self.map_border.remove(out_BND.reshape(-1, padded, padded, D)).reshape(-1, N, D)


def check_stages(depths: Sequence[int], sizes: dict[str, Sequence]) -> None:
    """Every size is given for each stage.

    Raises:
        ValueError: it is not.
    """
    for name, values in sizes.items():
        if len(values) != len(depths):
            raise ValueError(f"{name} must have as many entries as depths, {len(depths)}. Received: {values}")


class Twins(nn.Cell):
    """Twins classifier, mean over the last stage's tokens: ``(B, C, Y, X) -> (B, num_classes)``.

    Sizes are given per stage; ``window_sizes=None`` is PCPVT.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        in_channels: int,
        embed_dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        mlp_ratios: Sequence[float],
        sr_ratios: Sequence[int],
        window_sizes: Sequence[int] | None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        compat: str = "official",
    ):
        super().__init__()
        check_stages(
            depths, dict(embed_dims=embed_dims, num_heads=num_heads, mlp_ratios=mlp_ratios, sr_ratios=sr_ratios)
        )
        if window_sizes is not None:
            check_stages(depths, dict(window_sizes=window_sizes))
        smallest = _FIRST_PATCH * _NEXT_PATCH ** (len(depths) - 1)
        if image_size % smallest:
            raise ValueError(f"image_size must be a multiple of {smallest}. Received: {image_size}")
        self.image_size = image_size
        sides = [image_size // (_FIRST_PATCH * _NEXT_PATCH**stage) for stage in range(len(depths))]
        projections = [PatchConv2d(in_channels, embed_dims[0], _FIRST_PATCH)]
        for stage in range(1, len(depths)):
            projections.append(TokenConv2d(embed_dims[stage - 1], embed_dims[stage], _NEXT_PATCH, sides[stage - 1]))
        self.patch_embeds = nn.CellList([PatchEmbed(*pair) for pair in zip(projections, embed_dims, strict=True)])

        path_rates = linear_rates(drop_path_rate, sum(depths))
        rates = dict(attn_drop_rate=attn_drop_rate, drop_rate=drop_rate)
        stages, number = [], 0
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                size = dict(
                    dim=embed_dims[stage], num_heads=num_heads[stage], side=sides[stage], salt=16 * (number + 1)
                )
                if window_sizes is not None and index % 2 == 0:
                    attn = LocalAttention(window_size=window_sizes[stage], **size, **rates)
                else:
                    attn = GlobalAttention(sr_ratio=sr_ratios[stage], **size, **rates)
                tail = dict(mlp_ratio=mlp_ratios[stage], tanh_gelu=compat == "zoo", drop_rate=drop_rate)
                tail |= dict(drop_path_rate=path_rates[number], salt=size["salt"])
                blocks.append(Block(attn, embed_dims[stage], **tail))
                number += 1
            stages.append(nn.CellList(blocks))
        self.blocks = nn.CellList(stages)
        self.pos_block = nn.CellList([PosConv(dim, side) for dim, side in zip(embed_dims, sides, strict=True)])
        self.norm = LayerNorm(embed_dims[-1], 1e-6)
        self.head = Dense(embed_dims[-1], num_classes)
        self.mean = ops.ReduceMean()

    def construct(self, image_BCYX: Tensor, key_B: Tensor | None = None) -> Tensor:
        assert image_BCYX.shape[2:] == (self.image_size, self.image_size), "image size differs from the model's"
        x = None
        for stage in range(len(self.blocks)):
            # Under a second name an exported file would call its input by that.
            x = self.patch_embeds[stage](x if stage else image_BCYX)
            x = self.pos_block[stage](self.blocks[stage][0](x, key_B))
            for block in self.blocks[stage][1:]:
                x = block(x, key_B)
        return self.head(self.mean(self.norm(x), 1))

    def features(self, image_BCYX: Tensor) -> dict[str, Tensor]:
        """Named intermediates: patch_embeds.s, blocks.s.i, pos_block.s and norm, each (B, N, D), then head."""
        named = {}
        x = image_BCYX
        for stage, blocks in enumerate(self.blocks):
            named[f"patch_embeds.{stage}"] = x = self.patch_embeds[stage](x)
            for index, block in enumerate(blocks):
                named[f"blocks.{stage}.{index}"] = x = block(x)
                if index == 0:
                    named[f"pos_block.{stage}"] = x = self.pos_block[stage](x)
        named["norm"] = x = self.norm(x)
        named["head"] = self.head(self.mean(x, 1))
        return named

    def applications(self) -> tuple[dict[str, int], int]:
        """How often an image meets each weight, by the start of its name; multiply-accumulates of attention beside."""
        places, attention = {"head": 1}, 0
        for stage, blocks in enumerate(self.blocks):
            D, side = self.patch_embeds[stage].norm.channels, self.pos_block[stage].proj[0].side
            for index, block in enumerate(blocks):
                attn, here = block.attn, rf"blocks\.{stage}\.{index}\.attn"
                if isinstance(attn, LocalAttention):
                    padded = (side + attn.border) ** 2
                    places[here] = padded
                    attention += attention_products(padded, attn.window_size**2, D)
                else:
                    M = (side // attn.sr_ratio) ** 2
                    places[rf"{here}\.(kv|sr)"] = M
                    attention += attention_products(side * side, M, D)
            places[rf"(patch_embeds|blocks|pos_block)\.{stage}\."] = side * side
        return places, attention

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more dimensions that are not decayed either."""
        return {f"pos_block.{stage}.proj.0.weight" for stage in range(len(self.blocks))}

    def decayed_by_zoo(self, name: str) -> bool:
        """Whether the zoo's code decays a parameter."""
        return name.endswith(".weight") and not name.startswith("pos_block.")

    def head_prefixes(self) -> tuple[str, ...]:
        """How the names of the head's parameters start: what another number of classes replaces."""
        return ("head.",)

    def layer_groups(self) -> list[list[str]]:
        """Parameter names from the image to the logits: embedding, one group a block, the last with the norm, head.

        A stage's first block has its positions too, and from the second stage on its patch embedding.
        """
        prefixes: list = [("patch_embeds.0.",)]
        for stage, blocks in enumerate(self.blocks):
            embedding = (f"patch_embeds.{stage}.",) if stage else ()
            prefixes.append((*embedding, f"blocks.{stage}.0.", f"pos_block.{stage}."))
            prefixes += [(f"blocks.{stage}.{index}.",) for index in range(1, len(blocks))]
        prefixes[-1] += ("norm.",)
        return group_by_prefix(self, [*prefixes, ("head.",)])
