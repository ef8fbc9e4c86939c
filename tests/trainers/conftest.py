"""One small run, for all tests that look at its directory or go on from it."""

import pytest

from src.trainers.trainer import train
from tests import small_run


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return small_run.write_images(tmp_path_factory.mktemp("da ta"))


@pytest.fixture(scope="session")
def whole_run(data, tmp_path_factory):
    """The directory of an uninterrupted run of four epochs."""
    return train(small_run.config(data, tmp_path_factory.mktemp("whole")))
