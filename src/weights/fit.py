"""Out of a source the values of every parameter of a network, or all the reasons why not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from mindspore import Parameter, nn

from src.errors import ModelFileError
from src.models.cct import sine_embedding
from src.weights.names import detect_naming
from src.weights.naming import Naming
from src.weights.report import Resampled, WeightReport
from src.weights.resample import (
    BICUBIC_ANTIALIAS,
    BILINEAR,
    CORNERS,
    prefix_tokens,
    resample_patch_kernel,
    resample_positions,
)
from src.weights.source import Source, some

_CCT_POSITIONS = "classifier.positional_emb"
POSITIONS = ("pos_embed", "patch_pos", _CCT_POSITIONS)
_PATCH_KERNEL = "patch_embed.proj.weight"


@dataclass
class Assembled:
    """What a naming makes of a source.

    Args:
        naming: whose names the source has.
        arrays: by our names, where all tensors of a parameter are there.
        incomplete: our name -> the tensors that it lacks, where others are there.
        misshapen: our name -> shapes of tensors that do not go together.
        unexpected: names that are not in the naming.
    """

    naming: Naming
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    incomplete: dict[str, list[str]] = field(default_factory=dict)
    misshapen: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)


def fitted_weights(
    net: nn.Cell, source: Source, *, reset_head: bool = False, resample_patches: bool = False
) -> tuple[dict[str, np.ndarray], WeightReport]:
    """The values of a network's parameters out of a source, in the network's order; the network is only looked at.

    Args:
        net: the network.
        source: its weights, in any naming of `src.weights.names.namings`.
        reset_head: leave the head out where the source's has another class count, or there is none.
        resample_patches: resample the patch embedding where the source's patches have another size.

    Raises:
        ModelFileError: names that are missing or left over, shapes that differ, values that are not finite.
    """
    found = assemble(source, detect_naming(source.weights, net))
    parameters = dict(net.parameters_and_names())
    resampled = _resample(found, parameters, resample_patches)
    reset = _heads_to_reset(net, source, found.arrays, reset_head)
    _require_match(source.label, parameters, found, set(reset))
    loaded = [name for name in parameters if name not in reset]
    origins = {name: found.naming.origins[name].names for name in loaded}
    report = WeightReport(
        source=source.label,
        naming=found.naming.name,
        loaded=loaded,
        renamed=sorted(name for name in loaded if len(origins[name]) == 1 and origins[name] != (name,)),
        merged=sorted(name for name in loaded if len(origins[name]) > 1),
        resampled=resampled,
        reset=reset,
        left_over=source.left_over,
        unused=source.unused,
    )
    return {name: np.ascontiguousarray(found.arrays[name], np.float32) for name in loaded}, report


def assemble(source: Source, naming: Naming) -> Assembled:
    """Put the parameters together from a source's tensors.

    Raises:
        ModelFileError: the names are those of another network, or one weight has two of them.
    """
    tensors: dict[str, np.ndarray] = {}
    spelled: dict[str, str] = {}
    for name, array in source.weights.items():
        canonical = naming.aliases.get(name, name)
        if canonical in tensors:
            raise ModelFileError(source.label, f"holds a weight twice, as {spelled[canonical]} and as {name}")
        tensors[canonical], spelled[canonical] = array, name
    objection = naming.objection(set(tensors))
    if objection:
        raise ModelFileError(source.label, objection)
    found = Assembled(naming)
    for ours, origin in naming.origins.items():
        absent = [name for name in origin.names if name not in tensors]
        if not absent and origin.names:
            try:
                found.arrays[ours] = origin.read(tensors)
            except ValueError:
                found.misshapen[ours] = " and ".join(str(tensors[name].shape) for name in origin.names)
        elif len(absent) < len(origin.names):
            found.incomplete[ours] = absent
    known = {name for origin in naming.origins.values() for name in origin.names}
    found.unexpected = sorted(spelled[name] for name in tensors.keys() - known)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Other image and patch sizes


def _resample(found: Assembled, parameters: dict[str, Parameter], resample_patches: bool) -> list[Resampled]:
    """Replace position embeddings, and on request the patch embedding, by ones of the parameters' shapes."""
    notes = []
    for name in (*POSITIONS, _PATCH_KERNEL):
        if name not in found.arrays or name not in parameters:
            continue
        old, new = found.arrays[name], tuple(parameters[name].shape)
        if old.shape == new or not _differs_in_size_alone(name, old.shape, new):
            continue
        if name != _PATCH_KERNEL:
            result = _positions(name, old, parameters[name], found.naming.position_rule)
        elif resample_patches:
            # timm's choice for files of JAX.
            rule = BILINEAR if found.naming.position_rule == CORNERS else BICUBIC_ANTIALIAS
            result = resample_patch_kernel(old, new[-1], rule), rule
        else:
            continue
        if result is not None:
            found.arrays[name] = result[0]
            notes.append(Resampled(name, old.shape, new, result[1]))
    return notes


def _differs_in_size_alone(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether two shapes are those of another image size, or of another patch size."""
    if len(old) != len(new):
        return False
    if name == _PATCH_KERNEL:
        return old[:2] == new[:2] and old[2] == old[3]
    return (old[0], old[-1]) == (new[0], new[-1])


def _positions(name: str, old_1ND: np.ndarray, parameter: Parameter, rule: str) -> tuple[np.ndarray, str] | None:
    """A table for the parameter and the rule that made it; None where the old one is no square grid."""
    _, N, D = parameter.shape
    if name == _CCT_POSITIONS:
        rule = BILINEAR
        # The authors' own ``_sine`` models learn theirs, and such a table is resampled.
        if not parameter.requires_grad and np.allclose(
            old_1ND, sine_embedding(*old_1ND.shape[1:]).asnumpy(), atol=1e-4
        ):
            return sine_embedding(N, D).asnumpy(), "sine, computed anew"
    try:
        return resample_positions(old_1ND, N, rule), rule
    except ValueError:
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Checks


def _heads_to_reset(net: nn.Cell, source: Source, arrays: dict[str, np.ndarray], reset_head: bool) -> list[str]:
    """The head's parameters, if its own values stay.

    Raises:
        ModelFileError: the source's head would be loaded, and stands on a layer that is not.
    """
    parameters = dict(net.parameters_and_names())
    heads = [name for name in parameters if name.startswith(net.head_prefixes())]
    behind_another = any(name.startswith("pre_logits") for name in source.unused)
    if reset_head:
        there = [name for name in heads if name in arrays]
        differ = any(arrays[name].shape[:1] != tuple(parameters[name].shape[:1]) for name in there)
        return heads if differ or behind_another or not there else []
    if behind_another and any(name in arrays for name in heads):
        rule = "its head stands on pre_logits, which no network here has: train with reset_head for a new one"
        raise ModelFileError(source.label, rule)
    return []


def _require_match(label: str, parameters: dict[str, Parameter], found: Assembled, reset: set[str]) -> None:
    wanted = sorted(parameters.keys() - reset)
    arrays = found.arrays
    kinds = {
        "missing": [
            f"{name} (without {', '.join(found.incomplete[name])})" if name in found.incomplete else name
            for name in wanted
            if name not in arrays and name not in found.misshapen
        ],
        "unexpected": found.unexpected,
        "wrong shape": [
            f"{name} {arrays[name].shape if name in arrays else found.misshapen[name]} for "
            f"{tuple(parameters[name].shape)}{_hint(name, arrays, parameters)}"
            for name in wanted
            if name in found.misshapen or (name in arrays and arrays[name].shape != tuple(parameters[name].shape))
        ],
        "not finite": [name for name in wanted if name in arrays and not np.isfinite(arrays[name]).all()],
    }
    faults = [f"{len(names)} {kind}: {some(names)}" for kind, names in kinds.items() if names]
    if faults:
        raise ModelFileError(label, f"does not fit the model: {'; '.join(faults)}")


def _hint(name: str, arrays: dict[str, np.ndarray], parameters: dict[str, Parameter]) -> str:
    """Why a table of positions was not resampled, or what would resample a patch embedding."""
    if name not in (*POSITIONS, _PATCH_KERNEL) or name not in arrays:
        return ""
    new = tuple(parameters[name].shape)
    if not _differs_in_size_alone(name, arrays[name].shape, new):
        return ""
    if name == _PATCH_KERNEL:
        return " (resample_patches resamples it)"
    return f" (no square grid with {prefix_tokens(new[1])} tokens in front)"
