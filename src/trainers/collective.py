"""stub, replaced by the real one."""

from mindspore import nn


class MeanOverRanks(nn.Cell):
    def __init__(self, num_ranks=1):
        super().__init__(auto_prefix=False)

    def construct(self, x):
        return x


def sum_over_ranks(array):
    return array


def broadcast_from_first(array):
    return array


def require_equal_on_all_ranks(digest, what):
    pass
