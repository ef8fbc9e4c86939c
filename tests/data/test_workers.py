"""Worker processes: the same batches in the same order, whatever their number, and an end with a reason."""

import itertools
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import psutil
import pytest

from src.data import workers
from src.data.workers import BatchReader
from src.errors import ConfigError, DataError
from tests.command import python


@dataclass(frozen=True)
class Counting:
    """Step n holds n and its square, and may do something odd first."""

    oddity: str = ""
    at: int = -1

    layout = (((2, 3), np.float32), ((5,), np.int64))

    def fill(self, step: int, arrays: tuple[np.ndarray, ...], part=(0, 1)) -> list[str]:
        if step == self.at:
            if self.oddity == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.oddity == "hang":
                time.sleep(1000)
            if self.oddity == "user":
                raise ConfigError("some_key", "cannot be so", step, ["a", "b"])
            if self.oddity == "bug":
                raise ZeroDivisionError("a bug")
            if self.oddity == "skip":
                return [f"image {step} is bad"]
        time.sleep(0.002 * (step % 3))
        arrays[0][:], arrays[1][:] = step, step * step
        return []


def seen(batches) -> list[int]:
    found = []
    for number_23, square_5 in batches:
        assert (number_23.shape, number_23.dtype) == ((2, 3), np.float32)
        assert (square_5 == int(number_23[0, 0]) ** 2).all()
        assert (number_23 == number_23[0, 0]).all()
        found.append(int(number_23[0, 0]))
    return found


@pytest.mark.parametrize("count", [0, 1, 3])
def test_order_is_that_of_the_steps(count):
    with BatchReader({"train": Counting()}, count) as reader:
        assert seen(reader.read("train", range(40))) == list(range(40))
        assert seen(reader.read("train", [7, 2, 90, 2])) == [7, 2, 90, 2]
        assert seen(reader.read("train", [])) == []
    assert not multiprocessing.active_children()


def test_two_readings_at_a_time():
    with BatchReader({"train": Counting(), "val": Counting()}, 2) as reader:
        train = reader.read("train", range(30))
        first = seen(itertools.islice(train, 10))
        assert seen(reader.read("val", range(5))) == list(range(5))
        assert first + seen(train) == list(range(30))


def test_a_reading_may_be_left():
    with BatchReader({"train": Counting()}, 2) as reader:
        for _ in range(5):
            reading = reader.read("train", range(100))
            next(reading)
            reading.close()
        assert seen(reader.read("train", range(50, 60))) == list(range(50, 60))


@pytest.mark.parametrize("count", [0, 2])
def test_errors_of_users_cross_with_their_line(count):
    with BatchReader({"train": Counting("user", 3)}, count) as reader:
        reading = reader.read("train", range(9))
        with pytest.raises(ConfigError, match=r"^some_key: cannot be so\. Received: 3\. Known: a, b$") as caught:
            seen(reading)
        assert caught.value.lines == [str(caught.value)]
        assert seen(reader.read("train", range(4, 6))) == [4, 5]


@pytest.mark.parametrize("count", [0, 2])
def test_a_bug_stays_a_bug(count):
    with BatchReader({"train": Counting("bug", 3)}, count) as reader, pytest.raises(ZeroDivisionError, match="a bug"):
        seen(reader.read("train", range(9)))


@pytest.mark.parametrize("count", [0, 2])
def test_what_is_left_out_is_told_once(count):
    with BatchReader({"train": Counting("skip", 3)}, count) as reader:
        list(reader.read("train", range(9)))
        list(reader.read("train", range(9)))
        assert list(reader.left_out) == ["image 3 is bad"]


def test_a_killed_worker_ends_the_reading():
    killed = pytest.raises(DataError, match="a worker process was killed, or ran out of memory")
    with BatchReader({"train": Counting("kill", 5)}, 2) as reader, killed:
        seen(reader.read("train", range(40)))
    assert not multiprocessing.active_children()


def test_a_hanging_worker_ends_the_reading(monkeypatch):
    monkeypatch.setattr(workers, "_PATIENCE", 1.0)
    hanging = pytest.raises(DataError, match="no batch for 1 s")
    with BatchReader({"train": Counting("hang", 5)}, 2) as reader, hanging:
        seen(reader.read("train", range(40)))
    assert not multiprocessing.active_children()


def is_alive(pid: int) -> bool:
    try:
        # An orphan stays a zombie where no process 1 collects it.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_end_with_a_killed_parent():
    code = (
        "import itertools, os, signal\n"
        "from src.data.workers import BatchReader\n"
        "from tests.data.test_workers import Counting\n"
        "if __name__ == '__main__':\n"
        "    reading = BatchReader({'train': Counting()}, 2).read('train', range(10**6))\n"
        "    next(reading), next(reading), next(reading)\n"
        "    import multiprocessing\n"
        "    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = python("-c", code, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    pids = [int(word) for word in ended.stdout.split()]
    assert pids
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if is_alive(pid)]


def test_the_wait_for_batches_is_measured():
    with BatchReader({"train": Counting()}, 0) as reader:
        list(reader.read("train", [2] * 10))
        assert 0.04 <= reader.waited < 5
