"""The models that are measured, and what both sides build for them. Standard library only: the peer's process reads it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One model of the benchmark.

    Args:
        name: what the user types and the table prints.
        arch: a name of ``src.models.MODELS``.
        batch_size: images per step unless the user says otherwise.
        image_size: side of the square images.
        num_classes: outputs of the head.
        sizes: entries of the arch's row of sizes that differ, in this project's names.
    """

    name: str
    arch: str
    batch_size: int
    image_size: int
    num_classes: int
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """First word of the arch."""
        return self.arch.split("_")[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a pipe or a JSON file."""
        return asdict(self)


_VIT_32 = dict(patch_size=4, embed_dim=128, depth=4, num_heads=4, mlp_ratio=2.0)

CASES = {
    case.name: case
    for case in (
        Case("vit_tiny_patch16_224", "vit_tiny_patch16_224", 8, 224, 1000),
        Case("vit_small_patch16_224", "vit_small_patch16_224", 4, 224, 1000),
        Case("vit_d128_l4_patch4_32", "vit_tiny_patch16_224", 64, 32, 10, _VIT_32),
        Case("cct_7_3x1_32", "cct_7_3x1_32", 16, 32, 10),
        Case("cct_2_3x2_32", "cct_2_3x2_32", 64, 32, 10),
        Case("cct_7_7x2_224", "cct_7_7x2_224", 4, 224, 102),
    )
}
