"""Random numbers as a pure function of (seed, stream, epoch, position): counter-based Philox generators.

Nothing is drawn in sequence across samples, so worker counts, rank splits and restarts cannot change a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Independent uses of randomness; a number must never change its meaning."""

    ORDER = 0
    TRANSFORM = 1
    DROP_KEY = 2
    POLICY = 3
    ERASE = 4
    MIX = 5
    JITTER = 6


_EMPTY_BUFFER = np.zeros(4, np.uint64)
_in_use: dict[Stream, np.random.Generator] = {}


def generator(seed: int, stream: Stream, epoch: int, position: int = 0) -> np.random.Generator:
    """The generator of one sample (or one epoch's order) of one stream; good until the stream's next one is asked for.

    Every stream has one generator, which is set to the place: to make a new one takes six times as long.
    """
    if stream not in _in_use:
        _in_use[stream] = np.random.Generator(np.random.Philox(key=0))
    found = _in_use[stream]
    found.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": np.array([0, 0, epoch, position], np.uint64), "key": np.array([seed, stream], np.uint64)},
        "buffer": _EMPTY_BUFFER,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return found


@dataclass(frozen=True)
class SampleRandom:
    """The random numbers of one place in an epoch; a choice that is switched off shifts no other stream's."""

    seed: int
    epoch: int
    position: int

    def stream(self, stream: Stream) -> np.random.Generator:
        """A generator at the start of a stream."""
        return generator(self.seed, stream, self.epoch, self.position)


def drop_keys(seed: int, step: int, batch_size: int) -> np.ndarray:
    """One int32 in [0, 2^31) per image of the global batch of a step, from which layers derive their masks."""
    return generator(seed, Stream.DROP_KEY, step).integers(0, 2**31, batch_size, dtype=np.int32)
