"""Charts: every point is inside of its frame, ticks are round and reach around the values."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.metrics import reliability
from src.report.charts import HEIGHT, WIDTH, Series, line_chart, nice_ticks, number_text, reliability_diagram
from tests.report.evaluations import answers

numbers = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(numbers, numbers)
def test_ticks_are_round_and_reach_around(one, other):
    low, high = min(one, other), max(one, other)
    ticks = nice_ticks(low, high)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + step * 1e-6
    assert ticks[-1] >= high - step * 1e-6
    assert step / 10 ** math.floor(math.log10(step * (1 + 1e-9))) == pytest.approx(
        min((1, 2, 5, 10), key=lambda factor: abs(factor - step / 10 ** math.floor(math.log10(step * (1 + 1e-9)))))
    )


def test_known_ticks():
    assert nice_ticks(0, 30) == [0, 10, 20, 30]
    assert nice_ticks(0.12, 0.99) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert nice_ticks(5, 5)[0] < 5 < nice_ticks(5, 5)[-1]
    assert nice_ticks(0, 0)[0] < 0 < nice_ticks(0, 0)[-1]


def coordinates(svg: str) -> list[tuple[float, float]]:
    points = [pair.split(",") for drawn in re.findall(r'points="([^"]*)"', svg) for pair in drawn.split()]
    return [(float(x), float(y)) for x, y in points]


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(-10, 10)), min_size=1, max_size=50))
def test_lines_stay_inside(points):
    svg = line_chart("Loss", [Series("training", tuple(sorted(points)))], "epoch")
    drawn = coordinates(svg)
    assert len(drawn) == len(points)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in drawn)


def test_long_lines_are_thinned_and_keep_their_end():
    points = tuple((float(x), float(x % 7)) for x in range(100_000))
    svg = line_chart("Loss", [Series("training", points)], "epoch")
    assert len(coordinates(svg)) <= 602
    whole = line_chart("Loss", [Series("training", points[-2:])], "epoch")
    assert coordinates(svg)[-1][0] == coordinates(whole)[-1][0] == WIDTH - 10


def test_a_chart_says_what_it_shows():
    svg = line_chart("Top-1", [Series("<b>", ((1.0, 0.5), (2.0, 0.75)))], "epoch", is_share=True)
    assert 'role="img" aria-label="Top-1 over epoch: &lt;b&gt; ends at 75 %"' in svg
    assert "<b>" not in svg
    assert "120 %" not in line_chart("Top-1", [Series("a", ((1.0, 1.0),))], "epoch", is_share=True)


def test_bars_are_as_high_as_the_share_that_is_right():
    svg = reliability_diagram(reliability(answers([0, 0, 0, 0], [0, 1, 0, 0], [0.55, 0.56, 0.99, 1.0])))
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', svg)]
    assert heights[0] == pytest.approx(heights[1] / 2, abs=0.1)
    assert "confidence 0.53 to 0.60: 2 images, 50.0% right, 55.5% sure" in svg


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234567, "0.1235"), (1e-5, "1e-5"), (0.00015, "1.5e-4"), (30.0, "30"), (0.0, "0"), (1234567.0, "1.235e+06")],
)
def test_numbers(value, text):
    assert number_text(value) == text
