"""The models that are measured, and at which batch size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from src.errors import ConfigError


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


_VIT_32 = dict(patch_size=4, embed_dim=128, depth=4, num_heads=4, mlp_ratio=2.0)

CASES = {
    case.name: case
    for case in (
        Case("vit_tiny_patch16_224", "vit_tiny_patch16_224", 8, 224, 1000),
        Case("vit_small_patch16_224", "vit_small_patch16_224", 4, 224, 1000),
        Case("vit_d128_l4_patch4_32", "vit_tiny_patch16_224", 64, 32, 10, _VIT_32),
        Case("deit_small_distilled_patch16_224", "deit_small_distilled_patch16_224", 4, 224, 1000),
        Case("deit3_small_patch16_224", "deit3_small_patch16_224", 4, 224, 1000),
        Case("pcpvt_small_v0", "pcpvt_small_v0", 4, 224, 1000),
        Case("alt_gvt_small", "alt_gvt_small", 4, 224, 1000),
        Case("tnt_s_patch16_224", "tnt_s_patch16_224", 2, 224, 1000),
        Case("cct_7_3x1_32", "cct_7_3x1_32", 16, 32, 10),
        Case("cct_2_3x2_32", "cct_2_3x2_32", 64, 32, 10),
        Case("cct_7_7x2_224", "cct_7_7x2_224", 4, 224, 102),
    )
}


def chosen_cases(names: str, peer: str) -> list[Case]:
    """The cases of a comma-separated list, or ``all`` that the peer has.

    Raises:
        ConfigError: a name that is no case of this peer.
    """
    known = [name for name, case in CASES.items() if peer != "zoo" or case.arch.startswith("tnt_")]
    wanted = known if names == "all" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise ConfigError("--arch", f"no such case for --peer {peer}", name, ["all", *known])
    return [CASES[name] for name in wanted]
