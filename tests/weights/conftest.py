"""Both formats of torch's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.weights.files import legacy_torch_bytes, torch_bytes, write_file


@pytest.fixture(params=[torch_bytes, legacy_torch_bytes])
def write(request) -> Callable[[object], Path]:
    """Write a tree as ``net.pth``."""
    return lambda tree: write_file("net.pth", request.param(tree))
