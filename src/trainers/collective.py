"""What ranks do together: mean gradients inside a graph; sums, rank 0's arrays and comparisons on the host.

Every rank calls each of these in the same order, with arrays of the same shape and type. Alone, they cost nothing.
MindSpore's CPU collectives know few types and operators, so numbers travel as whole 32-bit words, and are added here.
"""

from __future__ import annotations

import hashlib

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.device import num_ranks
from src.errors import NumbersError, UserError

# Elements of one AllReduce: few large ones are twice as fast as one per gradient, and this is all the memory they take.
_BUCKET = 1 << 25
# Words of one Broadcast.
_CHUNK = 1 << 24


class MeanOverRanks(nn.Cell):
    """A tuple of float32 gradients -> their means over all ranks, the same bits on every rank.

    Args:
        sizes: number of elements of each gradient.
    """

    def __init__(self, sizes: tuple[int, ...]):
        super().__init__(auto_prefix=False)
        self.num_ranks = num_ranks()
        # A loop over hundreds of gradients exceeds the compiler's depth of calls.
        self.map = ops.HyperMap()
        if self.num_ranks > 1:
            self.scale = 1.0 / self.num_ranks
            self.all_reduce = ops.AllReduce()
            self.concat = ops.Concat()
            # Ascend's and CUDA's compilers join reductions of one group, and compute while they run.
            self.is_flat = ms.get_context("device_target") == "CPU"
            self.all_reduce.add_prim_attr("fusion", 1)
            self.buckets = buckets(sizes)

    def mean(self, gradient: Tensor) -> Tensor:
        """Of one array."""
        return self.all_reduce(gradient) * self.scale

    def flattened(self, gradient: Tensor) -> Tensor:
        """As a vector."""
        return gradient.reshape(-1)

    def piece(self, flat: Tensor, start: int, gradient: Tensor) -> Tensor:
        """A gradient's part of a vector, in the gradient's shape."""
        return ops.slice(flat, (start,), (gradient.size,)).reshape(gradient.shape)

    def construct(self, gradients: tuple) -> tuple:
        if self.num_ranks == 1:
            return gradients
        if not self.is_flat:
            return self.map(self.mean, gradients)
        means = ()
        for first, last, starts in self.buckets:
            some = gradients[first:last]
            flat = self.mean(self.concat(self.map(self.flattened, some)))
            means = means + self.map(ops.partial(self.piece, flat), starts, some)
        return means


def buckets(sizes: tuple[int, ...], limit: int = _BUCKET) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """Which neighbours are reduced together: the first one, the one behind the last, and where each starts.

    Args:
        sizes: number of elements of each array.
        limit: number of elements of a bucket, unless one array alone has more.
    """
    found, first, starts, filled = [], 0, [], 0
    for index, size in enumerate(sizes):
        if starts and filled + size > limit:
            found.append((first, index, tuple(starts)))
            first, starts, filled = index, [], 0
        starts.append(filled)
        filled += size
    return tuple(found + [(first, len(sizes), tuple(starts))] * bool(starts))


def sum_over_ranks(array: np.ndarray) -> np.ndarray:
    """Sum over all ranks: exact in int64 for whole numbers, in float64 and in the order of ranks for others."""
    array = np.asarray(array)
    kind = np.int64 if array.dtype.kind in "biu" else np.float64
    total = np.zeros(array.shape, kind)
    for part in of_all_ranks(array.astype(kind)):
        total += part
    return total


def of_all_ranks(array: np.ndarray) -> list[np.ndarray]:
    """The array of every rank, by rank."""
    array = np.asarray(array)
    if num_ranks() == 1 or array.size == 0:
        return [array.copy() for _ in range(num_ranks())]
    words = _words(array)
    gathered = ops.AllGather()(Tensor(words)).asnumpy().reshape(num_ranks(), -1)
    return [_from_words(row, array) for row in gathered]


def broadcast_from_first(array: np.ndarray) -> np.ndarray:
    """Rank 0's array, bit by bit, on every rank; others give one of the same shape and type."""
    array = np.asarray(array)
    if num_ranks() == 1 or array.size == 0:
        return array.copy()
    words = _words(array)
    broadcast = ops.Broadcast(0)
    for start in range(0, len(words), _CHUNK):
        part = words[start : start + _CHUNK]
        part[:] = broadcast((Tensor(part),))[0].asnumpy()
    return _from_words(words, array)


def text_of_first(text: str) -> str:
    """The first rank's text, on every rank."""
    data = np.frombuffer(text.encode(), np.uint8)
    length = int(broadcast_from_first(np.array([len(data)], np.int32))[0])
    padded = np.zeros(length, np.uint8)
    padded[: min(length, len(data))] = data[:length]
    return broadcast_from_first(padded).tobytes().decode()


def require_equal_on_all_ranks(digest_hex: str, what: str, error: type[UserError] = NumbersError) -> None:
    """Compare a hash with that of rank 0.

    Args:
        digest_hex: the hash as text.
        what: what was hashed, for the error.
        error: whose mistake a difference is.

    Raises:
        UserError: of that class on every rank, naming those that differ from rank 0.
    """
    digest = np.frombuffer(hashlib.sha256(digest_hex.encode()).digest(), np.uint8)
    first, *others = of_all_ranks(digest)
    differ = [str(rank) for rank, other in enumerate(others, start=1) if not np.array_equal(first, other)]
    if differ:
        noun = "ranks" if len(differ) > 1 else "rank"
        raise error(what, "must be equal on all ranks", f"{noun} {', '.join(differ)} unlike rank 0")


def _words(array: np.ndarray) -> np.ndarray:
    """An array's bytes as int32, filled up with zeros."""
    words = np.zeros(-(-array.nbytes // 4), np.int32)
    words.view(np.uint8)[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return words


def _from_words(words: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The array of this shape and type that these words hold."""
    return words.view(np.uint8)[: like.nbytes].view(like.dtype).reshape(like.shape).copy()
