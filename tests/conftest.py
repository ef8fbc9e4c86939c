"""Every test runs on the CPU in graph mode, in an empty folder of its own, without MindSpore's warnings."""

import gc
import time

import pytest
from hypothesis import settings

from src.device import open_device, prepare_libraries
from src.schema import RunConfig
from tests.cpp_runner import build

# Before anything imports MindSpore.
prepare_libraries(verbose=False)

# The same examples in every run, and no database in the current folder.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def cpu_graph_mode():
    open_device(RunConfig())


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory, monkeypatch):
    """A relative path that a test or MindSpore writes never lands in the checkout."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(autouse=True)
def forgotten_networks():
    """MindSpore drops a dead network's graph with what it knows of living ones of its inputs, and compiles those again.

    Networks are in cycles of references, and its next compilation collects them: too late for the network it compiles.
    """
    started = time.perf_counter()
    yield
    # Nothing was compiled in less.
    if time.perf_counter() - started > 0.5:
        gc.collect()


@pytest.fixture(scope="session")
def runner():
    """Path of the C++ runner."""
    return build()
