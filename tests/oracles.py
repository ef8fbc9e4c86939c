"""Results of outside code (timm, the authors', JAX, torch, scikit-learn) that lie beside the checkout, not in it.

What a bare clone needs of them stands in goldens.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROJECT = Path(__file__).parents[1]
SHARED = PROJECT.parent / "shared"
ORACLES = SHARED / "oracles"

requires_oracles = pytest.mark.skipif(
    not ORACLES.is_dir(), reason="the outside references in ../shared are not beside this checkout"
)


def read_json(name: str) -> Any:
    """An oracle's JSON by its path below the oracles."""
    return json.loads((ORACLES / name).read_text(encoding="utf-8"))


def read_arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of an oracle's .npz by its path below the oracles."""
    with np.load(ORACLES / name) as archive:
        return {key: archive[key] for key in archive.files}
