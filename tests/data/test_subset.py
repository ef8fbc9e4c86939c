"""Some images of a source: every class is met, evenly, and the same ones every time."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.image_source import Source
from src.data.loader import EvalBatches
from src.data.subset import Subset, spread
from src.data.synthetic import SyntheticImages
from src.data.transforms import EvalTransform
from src.data.workers import new_arrays

COUNTS = st.integers(1, 60)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), COUNTS)
def test_every_class_has_its_share(labels, count):
    places = spread(labels, count)
    assert list(places) == sorted(set(places))
    assert len(places) == min(count, len(labels))
    sizes, shares = np.bincount(labels), np.bincount(np.array(labels)[list(places)], minlength=max(labels) + 1)
    if count >= np.count_nonzero(sizes):
        assert (shares[sizes > 0] >= 1).all()
    # No class has an image more than its size asks for, but for the one that it has in any case.
    assert (shares <= np.maximum(1, np.ceil(sizes * count / len(labels)))).all()


def test_images_of_a_class_are_equally_far_apart():
    assert spread([0] * 50 + [1] * 50, 10) == tuple(range(0, 100, 10))
    assert spread([0, 1] * 50, 4) == (0, 1, 50, 51)


def test_a_small_class_is_met():
    assert spread([0] * 900 + [1] + [2] * 99, 10)[-2:] == (900, 901)


def test_fewer_images_than_classes():
    labels = [place // 2 for place in range(2000)]
    assert {labels[place] for place in spread(labels, 4)} == {0, 250, 500, 750}


@pytest.mark.parametrize("count", [None, 3, 4])
def test_all_of_them(count):
    assert spread([2, 0, 1], count) == (0, 1, 2)


def test_a_subset_is_a_source():
    source = SyntheticImages("val", 3, 9)
    subset = pickle.loads(pickle.dumps(Subset(source, (1, 5, 8))))
    typed: Source = subset
    assert (len(typed), typed.labels, typed.class_names) == (3, [1, 2, 2], source.class_names)
    assert typed.paths == [source.paths[place] for place in (1, 5, 8)]
    assert isinstance(typed.root, Path)
    transform = EvalTransform(16, 1.0, "bilinear", "squash", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    batches = EvalBatches(subset, transform, 4)
    image_BCYX, label_B, is_padding_B = arrays = new_arrays(batches.layout)
    batches.fill(0, arrays)
    np.testing.assert_array_equal(is_padding_B, [False, False, False, True])
    np.testing.assert_array_equal(label_B, [1, 2, 2, 0])
    np.testing.assert_array_equal(image_BCYX[2], transform(source.read(8)))
