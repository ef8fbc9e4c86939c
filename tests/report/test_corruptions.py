"""Errors by corruption."""

import numpy as np
import pytest

from src.report.corruptions import corruption_errors, error_lines


def test_errors_of_each_corruption():
    corruptions = {"fog": range(4), "jpeg_compression": range(4, 10)}
    is_right_N = np.array([1, 1, 1, 0, 0, 0, 0, 1, 1, 1], bool)
    errors = corruption_errors(np.arange(10), is_right_N, corruptions)
    assert errors == {"fog": 0.25, "jpeg_compression": 0.5}
    assert error_lines(errors) == [
        "corruption           error",
        "fog                 25.00%",
        "jpeg_compression    50.00%",
        "mean                37.50%  (plain mean of 2, not divided by AlexNet's errors: no mCE)",
    ]


def test_images_that_were_left_out_do_not_shift_others():
    corruptions = {"fog": range(4), "snow": range(4, 8)}
    index_N = np.array([0, 3, 4, 5, 6])
    errors = corruption_errors(index_N, np.array([True, False, True, True, False]), corruptions)
    assert errors == pytest.approx({"fog": 0.5, "snow": 1 / 3})
