"""Every test runs on the CPU in graph mode, in an empty folder of its own, without MindSpore's warnings."""

import pytest
from hypothesis import settings

from src.device import open_device, prepare_libraries
from src.schema import RunConfig
from tests.cpp_runner import build

# Before anything imports MindSpore.
prepare_libraries(verbose=False)

# Files that build or use the C++ runner, which lies in one place.
_WITH_RUNNER = ("test_pipeline.py", "test_scripts.py")
# Files whose tests share nothing, and take long.
_SPLIT = ("test_one_step.py", "test_parity.py")

# The same examples in every run, and no database in the current folder.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests one process has to run, where pytest-xdist runs several."""
    for item in items:
        name = item.path.name
        if item.path.parent.name == "runner" or name in _WITH_RUNNER:
            item.add_marker(pytest.mark.xdist_group("runner"))
        elif name not in _SPLIT:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session", autouse=True)
def cpu_graph_mode():
    open_device(RunConfig())


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory, monkeypatch):
    """A relative path that a test or MindSpore writes never lands in the checkout."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def runner():
    """Path of the C++ runner."""
    return build()
