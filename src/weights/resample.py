"""Position embeddings and patch kernels for other image and patch sizes, by the rule of whoever made the weights.

All rules are separable: a matrix (new, old) per axis, applied in float64 to rows and columns.

Shape letters: N tokens, D width, G side of the token grid, C image channels, P patch side.
"""

from __future__ import annotations

import math

import numpy as np

# timm's resample_abs_pos_embed, torch's bicubic with antialias=True.
BICUBIC_ANTIALIAS = "bicubic, antialiased"
# Hugging Face's interpolate_pos_encoding and facebookresearch/deit, torch's bicubic.
BICUBIC = "bicubic"
# SHI-Labs' resize_pos_embed, torch's bilinear.
BILINEAR = "bilinear"
# google-research/vision_transformer and big_vision, scipy's zoom of order 1: corners stay corners.
CORNERS = "bilinear, corners kept"


def prefix_tokens(num_tokens: int) -> int:
    """Tokens in front of a square grid; exact for two of them at most."""
    return num_tokens - math.isqrt(num_tokens) ** 2


def resample_positions(table_1ND: np.ndarray, num_tokens: int, rule: str) -> np.ndarray:
    """Position embeddings (1, N, D) for ``num_tokens`` tokens; those in front of the grid keep theirs.

    Raises:
        ValueError: the table is no square grid with as many tokens in front.
    """
    prefix = prefix_tokens(num_tokens)
    _, N, D = table_1ND.shape
    old, new = math.isqrt(max(N - prefix, 0)), math.isqrt(num_tokens)
    if old < 1 or old * old != N - prefix:
        raise ValueError(f"{N} tokens are no square grid with {prefix} in front")
    grid_GGD = table_1ND[0, prefix:].reshape(old, old, D).astype(np.float64)
    weight = resize_matrix(old, new, rule)
    grid_GGD = np.einsum("yi,xj,ijd->yxd", weight, weight, grid_GGD, optimize=True)
    return np.concatenate((table_1ND[:, :prefix], grid_GGD.reshape(1, new * new, D)), 1).astype(np.float32)


def resample_patch_kernel(weight_DCPP: np.ndarray, patch_size: int, rule: str) -> np.ndarray:
    """A patch embedding's kernel for another patch size: what it makes of a resized patch stays as near as it can.

    FlexiViT, https://arxiv.org/abs/2212.08013 eq. 4; timm's resample_patch_embed.
    """
    D, C, P, _ = weight_DCPP.shape
    weight = resize_matrix(P, patch_size, rule)
    inverse = np.linalg.pinv(np.kron(weight, weight))
    kernel = weight_DCPP.reshape(D, C, P * P).astype(np.float64) @ inverse
    return kernel.reshape(D, C, patch_size, patch_size).astype(np.float32)


def resize_matrix(old: int, new: int, rule: str) -> np.ndarray:
    """Weights (new, old) of the old places in each new one."""
    if rule == CORNERS:
        place = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
        return _two_neighbours(place, old)
    # Pixels are areas: the centre of new pixel i lies here among the old ones. In float32, as torch has it.
    place = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
    if rule == BILINEAR:
        return _two_neighbours(np.maximum(place, 0.0), old)
    if rule == BICUBIC:
        return _four_neighbours(place, old)
    return _wide_cubic(place, old, max(old / new, 1.0))


def _two_neighbours(place: np.ndarray, old: int) -> np.ndarray:
    weight = np.zeros((len(place), old))
    rows, below = np.arange(len(place)), np.floor(place).astype(int)
    np.add.at(weight, (rows, np.minimum(below, old - 1)), 1.0 - (place - below))
    np.add.at(weight, (rows, np.minimum(below + 1, old - 1)), place - below)
    return weight


def _four_neighbours(place: np.ndarray, old: int) -> np.ndarray:
    weight = np.zeros((len(place), old))
    below = np.floor(place).astype(int)
    for offset in (-1, 0, 1, 2):
        column = np.clip(below + offset, 0, old - 1)
        np.add.at(weight, (np.arange(len(place)), column), _cubic(place - (below + offset), -0.75))
    return weight


def _wide_cubic(place: np.ndarray, old: int, scale: float) -> np.ndarray:
    """The cubic stretched over all old pixels that a new one covers, cut at the border and normalised."""
    distance = place[:, None] - np.arange(old)[None]
    weight = _cubic(distance / scale, -0.5)
    return weight / weight.sum(1, keepdims=True)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel; torch takes a = -0.75, and with antialiasing -0.5."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
