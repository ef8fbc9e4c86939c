"""Compact Convolutional Transformer (CCT), https://arxiv.org/abs/2104.05704.

Names and mathematics follow the authors' SHI-Labs/Compact-Transformers ``src/cct.py``: a convolutional tokenizer,
learned or sine positions, no class token, attention pooling over the tokens. Their ``norm1`` lies in the residual
stream. ``compat="zoo"`` is what the model zoo's checkpoints were trained with: the tanh form of GELU, and pooling
windows that lie one pixel further (MaxPool "same").

Shape letters: B batch, C image channels, Y X rows and columns, N tokens, D width, F hidden width of the MLP.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import TruncatedNormal, initializer

from src.models.convolution import Conv2d, MapLayout, MaxPool2d
from src.models.kernels import Dense, Gelu, LayerNorm
from src.models.layers import Attention, Dropout, DropPath, attention_products, group_by_prefix, linear_rates

# Table 1 of the paper and the authors' factories; the rates are the same in all of them.
_RATES = dict(drop_rate=0.0, attn_drop_rate=0.1, drop_path_rate=0.1)
_CCT_2 = dict(depth=2, embed_dim=128, num_heads=2, mlp_ratio=1.0, **_RATES)
_CCT_4 = dict(depth=4, embed_dim=128, num_heads=2, mlp_ratio=1.0, **_RATES)
_CCT_6 = dict(depth=6, embed_dim=256, num_heads=4, mlp_ratio=2.0, **_RATES)
_CCT_7 = dict(depth=7, embed_dim=256, num_heads=4, mlp_ratio=2.0, **_RATES)
_CCT_14 = dict(depth=14, embed_dim=384, num_heads=6, mlp_ratio=3.0, **_RATES)
_3X1 = dict(kernel_size=3, num_conv_layers=1)
_3X2 = dict(kernel_size=3, num_conv_layers=2)
_7X2 = dict(kernel_size=7, num_conv_layers=2)
_LEARNABLE = dict(positional_embedding="learnable")
_SINE = dict(positional_embedding="sine")

SIZES = {
    "cct_2_3x2_32": dict(**_CCT_2, **_3X2, **_LEARNABLE),
    "cct_2_3x2_32_sine": dict(**_CCT_2, **_3X2, **_SINE),
    "cct_4_3x2_32": dict(**_CCT_4, **_3X2, **_LEARNABLE),
    "cct_4_3x2_32_sine": dict(**_CCT_4, **_3X2, **_SINE),
    "cct_6_3x1_32": dict(**_CCT_6, **_3X1, **_LEARNABLE),
    "cct_6_3x1_32_sine": dict(**_CCT_6, **_3X1, **_SINE),
    "cct_6_3x2_32": dict(**_CCT_6, **_3X2, **_LEARNABLE),
    "cct_6_3x2_32_sine": dict(**_CCT_6, **_3X2, **_SINE),
    "cct_7_3x1_32": dict(**_CCT_7, **_3X1, **_LEARNABLE),
    "cct_7_3x1_32_sine": dict(**_CCT_7, **_3X1, **_SINE),
    "cct_7_3x1_32_c100": dict(**_CCT_7, **_3X1, **_LEARNABLE),
    "cct_7_3x1_32_sine_c100": dict(**_CCT_7, **_3X1, **_SINE),
    "cct_7_3x2_32": dict(**_CCT_7, **_3X2, **_LEARNABLE),
    "cct_7_3x2_32_sine": dict(**_CCT_7, **_3X2, **_SINE),
    "cct_7_7x2_224": dict(**_CCT_7, **_7X2, **_LEARNABLE),
    "cct_7_7x2_224_sine": dict(**_CCT_7, **_7X2, **_SINE),
    "cct_14_7x2_224": dict(**_CCT_14, **_7X2, **_LEARNABLE),
    "cct_14_7x2_384": dict(**_CCT_14, **_7X2, **_LEARNABLE),
    "cct_14_7x2_384_fl": dict(**_CCT_14, **_7X2, **_LEARNABLE),
}
# The zoo's YAML files spell the arch with dashes.
ALIASES = {"cct_14-7x2_224": "cct_14_7x2_224", "cct_14-7x2_imagenet": "cct_14_7x2_224"}
_FIRST_CONV_CHANNELS = 64


class Tokenizer(nn.Cell):
    """Convolution, ReLU and 3x3 stride 2 pooling, once or twice, then tokens: ``(B, C, Y, X) -> (B, N, D)``."""

    def __init__(self, in_channels: int, embed_dim: int, kernel_size: int, num_conv_layers: int, zoo_pooling: bool):
        super().__init__()
        self.stride, self.padding = max(1, kernel_size // 2 - 1), max(1, kernel_size // 2)
        self.kernel_size = kernel_size
        channels = [in_channels, *[_FIRST_CONV_CHANNELS] * (num_conv_layers - 1), embed_dim]
        self.conv_layers = nn.CellList(
            [
                nn.SequentialCell(
                    Conv2d(channels[index], channels[index + 1], kernel_size, self.stride, self.padding),
                    nn.ReLU(),
                    MaxPool2d(first=0 if zoo_pooling else 1),
                )
                for index in range(num_conv_layers)
            ]
        )
        self.layout = MapLayout()

    def conv_sides(self, image_size: int) -> list[int]:
        """Side of each convolution's map."""
        sides, side = [], image_size
        for _ in self.conv_layers:
            sides.append((side + 2 * self.padding - self.kernel_size) // self.stride + 1)
            side = (sides[-1] + 1) // 2
        return sides

    def num_tokens(self, image_size: int) -> int:
        """Tokens that a square image gives."""
        return ((self.conv_sides(image_size)[-1] + 1) // 2) ** 2

    def construct(self, image_BCYX: Tensor) -> Tensor:
        feature_map = self.layout.from_image(image_BCYX)
        for layer in self.conv_layers:
            feature_map = layer(feature_map)
        return self.layout.to_tokens(feature_map)


class EncoderLayer(nn.Cell):
    """The authors' TransformerEncoderLayer: ``norm1`` replaces the stream before the MLP branch leaves it."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        *,
        tanh_gelu: bool,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        salt: int,
    ):
        super().__init__()
        hidden_dim = int(dim * mlp_ratio)
        self.pre_norm = LayerNorm(dim, 1e-5)
        self.self_attn = Attention(dim, num_heads, False, attn_drop_rate, drop_rate, salt)
        self.drop_path1 = DropPath(drop_path_rate, salt + 4)
        self.norm1 = LayerNorm(dim, 1e-5)
        self.linear1 = Dense(dim, hidden_dim)
        self.activation = Gelu(tanh_gelu)
        self.dropout1 = Dropout(drop_rate, salt + 6)
        self.linear2 = Dense(hidden_dim, dim)
        self.dropout2 = Dropout(drop_rate, salt + 8)
        self.drop_path2 = DropPath(drop_path_rate, salt + 10)

    def construct(self, x_BND: Tensor, key_B: Tensor | None = None) -> Tensor:
        x_BND = x_BND + self.drop_path1(self.self_attn(self.pre_norm(x_BND), key_B), key_B)
        x_BND = self.norm1(x_BND)
        hidden_BNF = self.dropout1(self.activation(self.linear1(x_BND)), key_B)
        return x_BND + self.drop_path2(self.dropout2(self.linear2(hidden_BNF), key_B), key_B)


class Classifier(nn.Cell):
    """Positions, encoder, attention pooling, head: ``(B, N, D) -> (B, num_classes)``."""

    def __init__(
        self,
        *,
        num_tokens: int,
        num_classes: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        positional_embedding: str,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        tanh_gelu: bool,
    ):
        super().__init__()
        if positional_embedding == "sine":
            # The authors' factories leave it learnable by mistake; a fixed table is what the paper describes.
            self.positional_emb = Parameter(sine_embedding(num_tokens, embed_dim), requires_grad=False)
        elif positional_embedding == "learnable":
            self.positional_emb = Parameter(initializer(TruncatedNormal(0.2), (1, num_tokens, embed_dim)))
        else:
            raise ValueError(f"positional_embedding must be learnable or sine. Received: {positional_embedding}")
        self.dropout = Dropout(drop_rate, salt=0)
        self.blocks = nn.CellList(
            [
                EncoderLayer(
                    embed_dim,
                    num_heads,
                    mlp_ratio,
                    tanh_gelu=tanh_gelu,
                    drop_rate=drop_rate,
                    attn_drop_rate=attn_drop_rate,
                    drop_path_rate=rate,
                    salt=16 * (index + 1),
                )
                for index, rate in enumerate(linear_rates(drop_path_rate, depth))
            ]
        )
        self.norm = LayerNorm(embed_dim, 1e-5)
        self.attention_pool = Dense(embed_dim, 1)
        self.fc = Dense(embed_dim, num_classes)
        self.softmax = nn.Softmax(-1)
        self.matmul = ops.BatchMatMul()

    def pool(self, x_BND: Tensor) -> Tensor:
        """Sequence pooling, the paper's eq. 2 and 3: (B, N, D) -> (B, D)."""
        _, N, D = x_BND.shape
        weight_B1N = self.softmax(self.attention_pool(x_BND).reshape(-1, 1, N))
        return self.matmul(weight_B1N, x_BND).reshape(-1, D)

    def construct(self, x_BND: Tensor, key_B: Tensor | None = None) -> Tensor:
        x_BND = self.dropout(x_BND + self.positional_emb, key_B)
        for block in self.blocks:
            x_BND = block(x_BND, key_B)
        return self.fc(self.pool(self.norm(x_BND)))


class CompactConvolutionalTransformer(nn.Cell):
    """CCT classifier: ``(B, C, Y, X) -> (B, num_classes)``."""

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        in_channels: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        kernel_size: int,
        num_conv_layers: int,
        positional_embedding: str,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        compat: str = "official",
    ):
        super().__init__()
        zoo = compat == "zoo"
        self.image_size = image_size
        self.tokenizer = Tokenizer(in_channels, embed_dim, kernel_size, num_conv_layers, zoo_pooling=zoo)
        self.classifier = Classifier(
            num_tokens=self.tokenizer.num_tokens(image_size),
            num_classes=num_classes,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            positional_embedding=positional_embedding,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            tanh_gelu=zoo,
        )

    def construct(self, image_BCYX: Tensor, key_B: Tensor | None = None) -> Tensor:
        assert image_BCYX.shape[2:] == (self.image_size, self.image_size), "image size differs from the model's"
        return self.classifier(self.tokenizer(image_BCYX), key_B)

    def features(self, image_BCYX: Tensor) -> dict[str, Tensor]:
        """Named intermediates in the authors' spelling: tokenizer, classifier.blocks.i, .norm (B, N, D), then .fc."""
        named = {"tokenizer": self.tokenizer(image_BCYX)}
        x_BND = named["tokenizer"] + self.classifier.positional_emb
        for index, block in enumerate(self.classifier.blocks):
            named[f"classifier.blocks.{index}"] = x_BND = block(x_BND)
        named["classifier.norm"] = x_BND = self.classifier.norm(x_BND)
        named["classifier.fc"] = self.classifier.fc(self.classifier.pool(x_BND))
        return named

    def applications(self) -> tuple[dict[str, int], int]:
        """How often an image meets each weight, by the start of its name; multiply-accumulates of attention beside."""
        _, N, D = self.classifier.positional_emb.shape
        places = {"classifier.(blocks|attention_pool)": N, "classifier.fc": 1}
        for index, side in enumerate(self.tokenizer.conv_sides(self.image_size)):
            places[f"tokenizer.conv_layers.{index}"] = side * side
        # Sequence pooling is one query of one head.
        return places, len(self.classifier.blocks) * attention_products(N, N, D) + N * D

    def no_weight_decay(self) -> set[str]:
        """Parameters of two or more dimensions that are not decayed either."""
        return {"classifier.positional_emb"}

    def decayed_by_zoo(self, name: str) -> bool:
        """Whether the zoo's code decays a parameter; the authors' decays the same, the positions too."""
        return not name.endswith((".gamma", ".beta", ".bias"))

    def head_prefixes(self) -> tuple[str, ...]:
        """How the names of the head's parameters start: what another number of classes replaces."""
        return ("classifier.fc.",)

    def layer_groups(self) -> list[list[str]]:
        """Parameter names from the image to the logits: embedding, one group a block, the last with the norm, head."""
        *blocks, last = [f"classifier.blocks.{index}." for index in range(len(self.classifier.blocks))]
        stem, head = ("tokenizer.", "classifier.positional_emb"), ("classifier.attention_pool.", "classifier.fc.")
        return group_by_prefix(self, [stem, *blocks, (last, "classifier.norm."), head])


def sine_embedding(num_tokens: int, dim: int) -> Tensor:
    """Fixed positions (1, N, D) as the authors compute them: even columns sine, odd columns cosine."""
    position_N1 = np.arange(num_tokens)[:, None]
    column_D = np.arange(dim)
    angle_ND = position_N1 / 10000.0 ** (2 * (column_D // 2) / dim)
    table_ND = np.where(column_D % 2 == 0, np.sin(angle_ND), np.cos(angle_ND))
    return Tensor(table_ND[None].astype(np.float32))
