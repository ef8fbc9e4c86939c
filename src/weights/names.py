"""What the tensors of a file are: wrapped, training state, without use, and by which source's names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from mindspore import nn

from src.weights.authors_names import authors_namings, tnt_objection
from src.weights.huggingface_names import huggingface_naming
from src.weights.jax_names import jax_naming
from src.weights.naming import Naming, origins_by_rules
from src.weights.zoo_names import zoo_namings

# What training code puts around a network, and the trees that JAX files keep it in.
_WRAPPERS = re.compile(r"^(?:(?:module|network|backbone|model|_orig_mod)\.)*(?:opt/target/|params/(?:img/)?)?")
# Optimizer state and counters in checkpoints of ours, of MindSpore, of the zoo and of JAX.
_NOT_WEIGHTS = re.compile(
    r"^(?:adam_m|adam_v|moments|moment1|moment2|accum|ema|_ema_weights\w*)\.|^opt/(?!target/)"
    r"|^_ema_weights|^(?:global_step|learning_rate|scale_sense|current_iterator_step|last_overflow_iterator_step)$"
)
# Weights that published files hold and no network of ours has.
_UNUSED = re.compile(r"pre_logits[./].+|outer_tokens|(?:vit\.|deit\.|)(?:pooler\.dense\..+|embeddings\.mask_token)")


def strip_wrappers(name: str) -> str:
    """``module.model.blocks.0…`` -> ``blocks.0…``."""
    return _WRAPPERS.sub("", name)


def is_training_state(name: str) -> bool:
    """Whether a tensor is optimizer state or a counter rather than a weight."""
    return _NOT_WEIGHTS.match(name) is not None


def is_unused(name: str) -> bool:
    """Whether a tensor is a weight that published files hold and no network of ours has."""
    return _UNUSED.fullmatch(name) is not None


def namings(net: nn.Cell) -> list[Naming]:
    """Every naming that is known for a network; ``ours`` is the first, ``official`` the second."""
    ours = Naming("ours", origins_by_rules({name: name for name, _ in net.parameters_and_names()}, ()))
    published = [naming for naming in (jax_naming(net), huggingface_naming(net)) if naming is not None]
    known = [ours, *authors_namings(net), *zoo_namings(net), *published]
    if "patch_pos" in ours.origins:
        return [replace(naming, objection=partial(tnt_objection, net)) for naming in known]
    return known


def detect_naming(source: Iterable[str], net: nn.Cell) -> Naming:
    """The naming that explains most names of a source, of equal ones the first."""
    source = set(source)
    return max(namings(net), key=lambda naming: len(source & naming.known_names()))
