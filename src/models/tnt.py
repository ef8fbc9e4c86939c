"""Transformer in Transformer (TNT), https://arxiv.org/abs/2103.00112.

Names and mathematics follow timm 1.0.31 ``tnt`` and huawei-noah/Efficient-AI-Backbones ``tnt_pytorch``: an inner
transformer over the pixels of each patch, whose result is added to the outer transformer's patches in every block.
``compat="zoo"`` is what the model zoo's checkpoints were trained with: the tanh form of GELU, an epsilon of 1e-7, and
no bias in five kinds of layers.

Shape letters: B batch, C image channels, Y X image rows and columns, S side of a patch, N patches, T tokens (a class
token and the patches), P pixels of a patch, E inner width, D outer width.
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import HeUniform, TruncatedNormal, initializer

from src.models.convolution import Conv2d, MapLayout
from src.models.kernels import Dense, Gelu, LayerNorm, Permute, current_form
from src.models.layers import (
    Dropout,
    DropPath,
    MultiHeadAttention,
    PrefixTokens,
    attention_products,
    group_by_prefix,
    linear_rates,
)

# Table 1 of the paper.
SIZES = {
    "tnt_s_patch16_224": dict(
        patch_size=16, embed_dim=384, depth=12, num_heads=6, inner_dim=24, inner_num_heads=4, mlp_ratio=4.0
    ),
    "tnt_b_patch16_224": dict(
        patch_size=16, embed_dim=640, depth=12, num_heads=10, inner_dim=40, inner_num_heads=4, mlp_ratio=4.0
    ),
}
_INNER_MLP_RATIO = 4
_STRIDE = 4


class PixelEmbed(nn.Cell):
    """Every patch by itself through a 7x7 convolution of stride 4: ``(B, C, Y, X) -> (B N, P, E)``."""

    def __init__(self, image_size: int, in_channels: int, inner_dim: int, patch_size: int, has_bias: bool):
        super().__init__()
        if image_size % patch_size or patch_size % _STRIDE:
            received = f"image_size {image_size}, patch_size {patch_size}"
            raise ValueError(f"image_size must be a multiple of patch_size, and that of 4. Received: {received}")
        self.patch_size, self.image_size = patch_size, image_size
        self.num_patches = (image_size // patch_size) ** 2
        self.proj = Conv2d(in_channels, inner_dim, kernel_size=7, stride=_STRIDE, padding=3, has_bias=has_bias)
        self.proj.weight.set_data(initializer(HeUniform(5**0.5), self.proj.weight.shape))
        self.permute, self.layout = Permute(0, 2, 4, 1, 3, 5), MapLayout()
        self.is_export = current_form() == "export"

    def construct(self, image_BCYX: Tensor) -> Tensor:
        assert image_BCYX.shape[2:] == (self.image_size, self.image_size), "image size differs from the model's"
        patch = self.cut(image_BCYX)
        return self.layout.to_tokens(self.proj(self.layout.from_image(patch)))

    def cut(self, image_BCYX: Tensor) -> Tensor:
        """Every patch as an image of its own: (B, C, Y, X) -> (B N, C, S, S)."""
        _, C, Y, X = image_BCYX.shape
        S = self.patch_size
        if self.is_export:
            # Lite 2.0 dies of an open batch that is reshaped before anything else is done to it.
            image_BYXC = image_BCYX.transpose(0, 2, 3, 1)
            patch = image_BYXC.reshape(-1, Y // S, S, X // S, S, C).transpose(0, 1, 3, 5, 2, 4)
        else:
            patch = self.permute(image_BCYX.reshape(-1, C, Y // S, S, X // S, S))
        return patch.reshape(-1, C, S, S)


class Attention(MultiHeadAttention):
    """Self-attention without projection biases but the last; ``qk`` (2D, D), ``v`` and ``proj`` (D, D)."""

    def __init__(self, dim: int, num_heads: int, has_bias: bool, attn_drop_rate: float, drop_rate: float, salt: int):
        super().__init__(dim, num_heads, attn_drop_rate, drop_rate, salt)
        self.qk, self.v = Dense(dim, 2 * dim, has_bias=False), Dense(dim, dim, has_bias=False)
        self.proj = Dense(dim, dim, has_bias)
        self.split = ops.Split(2, 2)

    def construct(self, x_BTD: Tensor, key_B: Tensor | None = None) -> Tensor:
        q_BTD, k_BTD = self.split(self.qk(x_BTD))
        return self.attend(q_BTD, k_BTD, self.v(x_BTD), key_B)


class Mlp(nn.Cell):
    """Dense, GELU, Dense; parameters ``fc1.*`` and ``fc2.*``, whose bias the zoo lacks."""

    def __init__(self, dim: int, hidden_dim: int, zoo: bool, drop_rate: float, salt: int):
        super().__init__()
        self.fc1 = Dense(dim, hidden_dim)
        self.act = Gelu(zoo)
        self.drop1 = Dropout(drop_rate, salt)
        self.fc2 = Dense(hidden_dim, dim, has_bias=not zoo)
        self.drop2 = Dropout(drop_rate, salt + 2)

    def construct(self, x_BTD: Tensor, key_B: Tensor | None = None) -> Tensor:
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(x_BTD)), key_B)), key_B)


class Block(nn.Cell):
    """Inner transformer, its result into the patches, outer transformer (eq. 5 to 9 of the paper).

    The inner stream drops paths patch by patch, as the authors' rows are patches there.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        inner_dim: int,
        num_patches: int,
        num_pixels: int,
        num_heads: int,
        inner_num_heads: int,
        mlp_ratio: float,
        zoo: bool,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        salt: int,
    ):
        super().__init__()
        epsilon = layer_norm_epsilon(zoo)
        self.norm_in = LayerNorm(inner_dim, epsilon)
        self.attn_in = Attention(inner_dim, inner_num_heads, not zoo, attn_drop_rate, drop_rate, salt)
        self.norm_mlp_in = LayerNorm(inner_dim, epsilon)
        self.mlp_in = Mlp(inner_dim, _INNER_MLP_RATIO * inner_dim, zoo, drop_rate, salt + 4)
        self.norm1_proj = LayerNorm(num_pixels * inner_dim, epsilon)
        self.proj = Dense(num_pixels * inner_dim, embed_dim, has_bias=False)
        self.norm2_proj = LayerNorm(embed_dim, epsilon)
        self.class_token = PrefixTokens(1, num_patches)
        self.norm_out = LayerNorm(embed_dim, epsilon)
        self.attn_out = Attention(embed_dim, num_heads, not zoo, attn_drop_rate, drop_rate, salt + 8)
        self.norm_mlp = LayerNorm(embed_dim, epsilon)
        self.mlp = Mlp(embed_dim, int(mlp_ratio * embed_dim), zoo, drop_rate, salt + 12)
        self.drop_paths = nn.CellList([DropPath(drop_path_rate, salt + 16 + 2 * index) for index in range(4)])

    def construct(self, pixel: Tensor, token_BTD: Tensor, key_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pixel = pixel + self.drop_paths[0](self.attn_in(self.norm_in(pixel), key_B), key_B)
        pixel = pixel + self.drop_paths[1](self.mlp_in(self.norm_mlp_in(pixel), key_B), key_B)
        patch_BND = self.norm2_proj(self.proj(self.norm1_proj(patch_rows(pixel, token_BTD.shape[1] - 1))))
        token_BTD = token_BTD + self.class_token.after_zeros(patch_BND)
        token_BTD = token_BTD + self.drop_paths[2](self.attn_out(self.norm_out(token_BTD), key_B), key_B)
        token_BTD = token_BTD + self.drop_paths[3](self.mlp(self.norm_mlp(token_BTD), key_B), key_B)
        return pixel, token_BTD


class TNT(nn.Cell):
    """TNT classifier with a class token: ``(B, C, Y, X) -> (B, num_classes)``."""

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
        inner_dim: int,
        inner_num_heads: int,
        mlp_ratio: float,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        compat: str = "official",
    ):
        super().__init__()
        zoo = compat == "zoo"
        epsilon = layer_norm_epsilon(zoo)
        self.pixel_embed = PixelEmbed(image_size, in_channels, inner_dim, patch_size, has_bias=not zoo)
        side = patch_size // _STRIDE
        self.num_patches, num_pixels = self.pixel_embed.num_patches, side**2
        self.norm1_proj = LayerNorm(num_pixels * inner_dim, epsilon)
        self.proj = Dense(num_pixels * inner_dim, embed_dim, has_bias=not zoo)
        self.norm2_proj = LayerNorm(embed_dim, epsilon)
        self.prefix = PrefixTokens(1, self.num_patches)
        self.cls_token = Parameter(initializer(TruncatedNormal(0.02), (1, 1, embed_dim)))
        self.patch_pos = Parameter(initializer(TruncatedNormal(0.02), (1, self.num_patches + 1, embed_dim)))
        self.pixel_pos = Parameter(initializer(TruncatedNormal(0.02), (1, inner_dim, side, side)))
        self.pos_drop = Dropout(drop_rate, salt=0)
        self.blocks = nn.CellList(
            [
                Block(
                    embed_dim=embed_dim,
                    inner_dim=inner_dim,
                    num_patches=self.num_patches,
                    num_pixels=num_pixels,
                    num_heads=num_heads,
                    inner_num_heads=inner_num_heads,
                    mlp_ratio=mlp_ratio,
                    zoo=zoo,
                    drop_rate=drop_rate,
                    attn_drop_rate=attn_drop_rate,
                    drop_path_rate=rate,
                    salt=32 * (index + 1),
                )
                for index, rate in enumerate(linear_rates(drop_path_rate, depth))
            ]
        )
        self.norm = LayerNorm(embed_dim, epsilon)
        self.head = Dense(embed_dim, num_classes, has_bias=not zoo)

    def embed_pixels(self, image_BCYX: Tensor) -> Tensor:
        """Pixels of all patches with their positions: (B N, P, E)."""
        _, E, side, _ = self.pixel_pos.shape
        position_1PE = self.pixel_pos.reshape(1, E, side * side).transpose(0, 2, 1)
        return self.pixel_embed(image_BCYX) + position_1PE

    def embed_patches(self, pixel: Tensor, key_B: Tensor | None = None) -> Tensor:
        """Class token and patches with their positions: (B, T, D)."""
        patch_BND = self.norm2_proj(self.proj(self.norm1_proj(patch_rows(pixel, self.num_patches))))
        return self.pos_drop(self.prefix(self.cls_token, patch_BND) + self.patch_pos, key_B)

    def construct(self, image_BCYX: Tensor, key_B: Tensor | None = None) -> Tensor:
        pixel = self.embed_pixels(image_BCYX)
        token_BTD = self.embed_patches(pixel, key_B)
        for block in self.blocks:
            pixel, token_BTD = block(pixel, token_BTD, key_B)
        # Every token is normalised, then one is picked: Lite 2.0 gets a norm of 2 to 7 rows wrong.
        return self.head(self.norm(token_BTD)[:, 0])

    def features(self, image_BCYX: Tensor) -> dict[str, Tensor]:
        """Named intermediates in timm's spelling: pixel_embed (B N, P, E), blocks.i and norm (B, T, D), then head."""
        pixel = self.embed_pixels(image_BCYX)
        named = {"pixel_embed": pixel}
        token_BTD = self.embed_patches(pixel)
        for index, block in enumerate(self.blocks):
            pixel, token_BTD = block(pixel, token_BTD)
            named[f"blocks.{index}"] = token_BTD
        named["norm"] = token_BTD = self.norm(token_BTD)
        named["head"] = self.head(token_BTD[:, 0])
        return named

    def applications(self) -> tuple[dict[str, int], int]:
        """How often an image meets each weight, by the start of its name; multiply-accumulates of attention beside."""
        N, D = self.num_patches, self.cls_token.shape[-1]
        _, E, side, _ = self.pixel_pos.shape
        P, T = side * side, N + 1
        places = {
            "pixel_embed": N * P,
            r"blocks\.\d+\.(attn_in|mlp_in)": N * P,
            r"(blocks\.\d+\.)?proj": N,
            "blocks": T,
            "head": 1,
        }
        return places, len(self.blocks) * (N * attention_products(P, P, E) + attention_products(T, T, D))

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more dimensions that are not decayed either."""
        return {"cls_token", "patch_pos", "pixel_pos"}

    def decayed_by_zoo(self, name: str) -> bool:
        """Whether the zoo's code decays a parameter."""
        return name.endswith(".weight")

    def head_prefixes(self) -> tuple[str, ...]:
        """How the names of the head's parameters start: what another number of classes replaces."""
        return ("head.",)

    def layer_groups(self) -> list[list[str]]:
        """Parameter names from the image to the logits: embedding, one group a block, the last with the norm, head."""
        *blocks, last = [f"blocks.{index}." for index in range(len(self.blocks))]
        stem = ("cls_token", "patch_pos", "pixel_pos", "pixel_embed.", "norm1_proj.", "proj.", "norm2_proj.")
        return group_by_prefix(self, [stem, *blocks, (last, "norm."), ("head.",)])


def layer_norm_epsilon(zoo: bool) -> float:
    """The default of torch, or of MindSpore, which the zoo left in place."""
    return 1e-7 if zoo else 1e-5


def patch_rows(pixel: Tensor, num_patches: int) -> Tensor:
    """Pixels (B N, P, E) as one row for each patch: (B, N, P E)."""
    _, P, E = pixel.shape
    return pixel.reshape(-1, num_patches, P * E)
