"""Half precision by level, and the loss scale that keeps small gradients from vanishing in float16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import nn

from src.models import model_entry
from src.models.convolution import Conv2d, DepthwiseConv2d, MaxPool2d, TokenConv2d
from src.models.kernels import Dense, Gelu, LayerNorm
from src.schema import Config

_NORMS = (LayerNorm,)
_DELICATE = (LayerNorm, nn.Softmax, Gelu)
_CONVOLUTIONS = (Conv2d, DepthwiseConv2d, TokenConv2d, MaxPool2d)


@dataclass(frozen=True)
class Cast:
    """Which cells compute in half precision.

    Args:
        whole: all of them but ``excepted``; otherwise ``excepted`` alone.
        excepted: types of cells.
    """

    whole: bool
    excepted: tuple[type, ...] = ()


@dataclass(frozen=True)
class AmpTable:
    """What the levels of one origin mean.

    Args:
        levels: by ``amp_level``.
        initial_scale: of a dynamic loss scale.
        window: updates without overflow before it grows.
    """

    levels: Mapping[str, Cast]
    initial_scale: float
    window: int


_NOTHING, _ALL = Cast(False), Cast(True)
# O1 and O2 as NVIDIA's apex and MindSpore's amp use the words for transformers; O3 keeps nothing.
OFFICIAL = AmpTable({"O0": _NOTHING, "O1": Cast(True, _DELICATE), "O2": Cast(True, _NORMS), "O3": _ALL}, 2.0**16, 2000)
# The model zoo's folders mean four different things by a level, and start at three different scales.
ZOO = {
    # Its O1 casts nothing.
    "cct": AmpTable(
        {"O0": _NOTHING, "O1": _NOTHING, "O2": Cast(True, _DELICATE + _CONVOLUTIONS), "O3": _ALL}, 2.0**12, 1000
    ),
    "deit": AmpTable(OFFICIAL.levels, 2.0**16, 2000),
    # Its GELU is half at O1.
    "twins": AmpTable({**OFFICIAL.levels, "O1": Cast(True, (LayerNorm, nn.Softmax))}, 2.0**24, 2000),
    # It refuses O1.
    "tnt": AmpTable({**OFFICIAL.levels, "O2": Cast(False, (Dense,))}, 2.0**24, 2000),
    # It trains at O3 on Ascend, at O0 elsewhere, without a loss scale.
    "vit": OFFICIAL,
}


def amp_table(config: Config) -> AmpTable:
    """The table of a resolved config."""
    return ZOO[model_entry(config.model.arch).family] if config.model.compat == "zoo" else OFFICIAL


def cast_network(net: nn.Cell, config: Config) -> int:
    """Let cells of a network compute in half precision, as ``amp_level`` says; its parameters stay float32.

    A CPU has no faster half precision, and no bfloat16 at all: there nothing is cast.

    Returns:
        How many cells were cast.
    """
    precision = config.precision
    if config.run.device_target == "CPU":
        return 0
    return cast_cells(net, amp_table(config).levels[precision.amp_level], getattr(ms, precision.amp_dtype))


def cast_cells(net: nn.Cell, cast: Cast, half: ms.Type) -> int:
    """Set the type that cells compute in; returns how many of them have no cells inside and are half."""
    count = 0
    if cast.whole:
        net.to_float(half)
    for _, cell in net.cells_and_names():
        is_excepted = isinstance(cell, cast.excepted)
        if is_excepted:
            cell.to_float(ms.float32 if cast.whole else half)
        count += is_excepted != cast.whole and not list(cell.cells())
    return count


class LossScale:
    """The loss scale of a run, and how it moves: MindSpore's DynamicLossScaleManager, written as plain numbers.

    Args:
        config: of the run, resolved.
        state: what `state` gave when a checkpoint was written.

    Attributes:
        in_use: whether losses are scaled at all.
        value: the present scale.
    """

    def __init__(self, config: Config, state: Mapping[str, Any] | None = None):
        precision, table = config.precision, amp_table(config)
        self.in_use = precision.amp_level != "O0" and precision.amp_dtype == "float16"
        self.is_dynamic = self.in_use and precision.is_dynamic_loss_scale
        self.factor, self.window = precision.loss_scale_factor, precision.loss_scale_window or table.window
        start = precision.initial_loss_scale or table.initial_scale if self.is_dynamic else precision.loss_scale
        self.value, self.quiet = start if self.in_use else 1.0, 0
        if state and self.is_dynamic:
            self.value, self.quiet = state["value"], state["quiet"]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON can; nothing of a scale that does not move."""
        return {"value": self.value, "quiet": self.quiet} if self.is_dynamic else {}

    def update(self, finite: bool) -> None:
        """Take in whether an update's gradients were finite; the scale never falls below 1."""
        if not self.is_dynamic:
            return
        if not finite:
            self.value, self.quiet = max(self.value / self.factor, 1.0), 0
            return
        self.quiet += 1
        if self.quiet >= self.window:
            self.value, self.quiet = self.value * self.factor, 0
