"""A rank of `test_collective`: does everything together with the others, and says what came out."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from src.startup import run

SHAPES = [(3,), (2, 5), (1,), (4, 3, 2)]
MANY = 400


def main(argv: list[str]) -> None:
    from src import device
    from src.schema import RunConfig

    # msrun gives all ranks the same command line.
    folder = argv[argv.index("--output_dir") + 1] if argv else os.environ["RANK_ID"]
    device.open_device(RunConfig())
    said = {"rank": device.rank(), "size": device.num_ranks(), **means(), **sums(), **broadcasts(), **error()}
    Path(folder, "said.json").write_text(json.dumps(said))


def means() -> dict[str, object]:
    import numpy as np
    from mindspore import Tensor, set_context

    from src.device import rank
    from src.trainers import collective

    def mean(arrays: list[np.ndarray]) -> str:
        cell = collective.MeanOverRanks(tuple(array.size for array in arrays))
        means = [tensor.asnumpy() for tensor in cell(tuple(map(Tensor, arrays)))]
        parts = [collective.of_all_ranks(array) for array in arrays]
        for got, of_ranks in zip(means, parts, strict=True):
            np.testing.assert_allclose(got, np.mean(of_ranks, axis=0), rtol=1e-6, atol=1e-7)
        return hashlib.sha256(b"".join(array.tobytes() for array in means)).hexdigest()

    random = np.random.default_rng(rank())
    few = [random.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    many = [random.standard_normal(2 + i % 3).astype(np.float32) for i in range(MANY)]
    said = {"means": mean(few), "many": mean(many)}
    set_context(mode=1)
    assert mean(few) == said["means"]
    set_context(mode=0)
    collective._BUCKET = 12
    assert mean(few) == said["means"]
    return said


def sums() -> dict[str, object]:
    import numpy as np

    from src.device import rank
    from src.trainers.collective import sum_over_ranks

    counts = np.array([[2**53 - 7 * rank(), -rank()], [rank(), 1]], np.int64)
    return {
        "counts": sum_over_ranks(counts).tolist(),
        "truths": sum_over_ranks(np.array([True, rank() == 0])).tolist(),
        "floats": sum_over_ranks(np.array([0.1 * (rank() + 1), 1e300])).tobytes().hex(),
        "scalar": sum_over_ranks(np.float32(0.5)).item(),
    }


def broadcasts() -> dict[str, object]:
    import numpy as np

    from src.device import rank
    from src.trainers import collective

    random = np.random.default_rng(rank())
    collective._CHUNK = 1000
    for kind in (np.float32, np.float64, np.float16, np.int64, np.int8, np.uint8, np.bool_):
        mine = random.integers(0, 2 if kind is np.bool_ else 100, (7, 501)).astype(kind)
        mine[0, 0] = kind(1) if kind is np.bool_ else mine[0, 0]
        theirs = collective.of_all_ranks(mine)[0]
        got = collective.broadcast_from_first(mine)
        assert got.dtype == kind
        np.testing.assert_array_equal(got, theirs)
    # Any bits, those of no number too.
    noise = np.frombuffer(random.bytes(4 * 333), np.float32)
    assert collective.broadcast_from_first(noise).tobytes() == collective.of_all_ranks(noise)[0].tobytes()
    assert collective.broadcast_from_first(np.zeros((0, 3))).shape == (0, 3)
    assert collective.broadcast_from_first(np.array(rank())).item() == 0
    # Texts of several lengths, one of them empty.
    return {"text": collective.text_of_first("rank 0: é" if rank() == 0 else "longer than that" * (rank() - 1))}


def error() -> dict[str, object]:
    from src.device import rank
    from src.errors import NumbersError
    from src.trainers.collective import require_equal_on_all_ranks

    require_equal_on_all_ranks("ab", "weights")
    try:
        require_equal_on_all_ranks("ab" if rank() == 0 else "abc", "weights after step 3")
    except NumbersError as error:
        return {"error": str(error)}
    return {}


run(main)
