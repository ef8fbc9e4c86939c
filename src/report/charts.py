"""Small charts as SVG: lines over epochs, and a reliability diagram. Sizes are units of the viewBox, about pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from src.metrics import Reliability
from src.report.html import Html, element, join

WIDTH, HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 38
_TICKS = 5
# More points are not seen at this size.
_MOST_POINTS = 600


@dataclass(frozen=True)
class Series:
    """One line: its name, and points (x, y) in the order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Frame:
    """Where values lie in the drawing: the ends of both axes."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)


def nice_ticks(low: float, high: float, most: int = _TICKS) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``: steps of 1, 2 or 5 times a power of ten.

    Args:
        low: smallest value.
        high: largest value; may be equal.
        most: about so many.
    """
    if high <= low:
        low, high = low - (abs(low) or 1.0) / 2, low + (abs(low) or 1.0) / 2
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 5, 10) if (high - low) / (factor * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def line_chart(title: str, series: Sequence[Series], x_name: str, is_share: bool = False) -> Html:
    """Lines in one frame, with their names above.

    Args:
        title: of the figure.
        series: those without points are left out.
        x_name: what x is.
        is_share: y is shown in percent.
    """
    series = [one for one in series if one.points]
    values = [point for one in series for point in one.points]
    x_ticks = nice_ticks(min(x for x, _ in values), max(x for x, _ in values))
    y_ticks = nice_ticks(min(y for _, y in values), max(y for _, y in values))
    if is_share:
        y_ticks = [tick for tick in y_ticks if -1e-9 <= tick <= 1 + 1e-9]
    frame = _Frame((x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    lines = [_line(one, frame, place) for place, one in enumerate(series)]
    drawing = join([_axes(frame, x_ticks, y_ticks, x_name, is_share), *lines])
    last = "; ".join(f"{one.name} ends at {number_text(one.points[-1][1], is_share)}" for one in series)
    names = [element("span", one.name, class_=f"key key{place}") for place, one in enumerate(series)]
    return _figure(title, names, drawing, f"{title} over {x_name}: {last}")


def reliability_diagram(found: Reliability) -> Html:
    """Accuracy of every bin of confidence against the diagonal, and below it the share of the images."""
    bins, total = len(found.total_M), int(found.total_M.sum())
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    frame = _Frame((0.0, 1.0), (0.0, 1.0))
    bars = []
    for place, (images, right, confidence) in enumerate(
        zip(found.total_M.tolist(), found.right_M.tolist(), found.confidence_M.tolist(), strict=True)
    ):
        if not images:
            continue
        low, high, accuracy = place / bins, (place + 1) / bins, right / images
        text = (
            f"confidence {low:.2f} to {high:.2f}: {images} images, {accuracy:.1%} right, {confidence / images:.1%} sure"
        )
        left, top = frame.at(low, accuracy)
        right_end, bottom = frame.at(high, 0.0)
        size = dict(x=_unit(left + 1), width=_unit(right_end - left - 2), y=_unit(top), height=_unit(bottom - top))
        bars.append(element("rect", element("title", text), class_="bar", **size))
        mark_x, mark_y = frame.at(confidence / images, accuracy)
        bars.append(element("circle", cx=_unit(mark_x), cy=_unit(mark_y), r=2.5, class_="mark"))
    (x1, y1), (x2, y2) = frame.at(0.0, 0.0), frame.at(1.0, 1.0)
    diagonal = element("line", x1=_unit(x1), y1=_unit(y1), x2=_unit(x2), y2=_unit(y2), class_="diagonal")
    axes = _axes(frame, ticks, ticks, "confidence", is_share=True)
    names = [
        element("span", "share that is right", class_="key key0"),
        element("span", "if perfect", class_="key dashed"),
    ]
    text = f"reliability diagram of {total} images in {bins} bins of confidence"
    return _figure("Reliability", names, join([axes, *bars, diagonal]), text)


def number_text(value: float, is_share: bool = False) -> str:
    """A number for people: at most four digits, or a percentage; small ones as 1.5e-4."""
    if is_share:
        return f"{100 * value:.4g} %"
    if 0 < abs(value) < 1e-3:
        digits, _, exponent = f"{value:.3e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:.4g}"


def _figure(title: str, names: Sequence[Html], drawing: Html, text: str) -> Html:
    svg = element("svg", drawing, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=text)
    caption = element("figcaption", element("strong", title), " ", *names)
    return element("figure", caption, svg, class_="chart")


def _line(series: Series, frame: _Frame, place: int) -> Html:
    points = series.points[:: max(1, math.ceil(len(series.points) / _MOST_POINTS))]
    if points[-1] != series.points[-1]:
        points = (*points, series.points[-1])
    places = [frame.at(x, y) for x, y in points]
    drawn = " ".join(f"{_unit(x)},{_unit(y)}" for x, y in places)
    x, y = places[-1]
    end = element("circle", cx=_unit(x), cy=_unit(y), r=2.5, class_=f"dot dot{place}")
    return join([element("polyline", points=drawn, class_=f"line line{place}"), end])


def _axes(frame: _Frame, x_ticks: list[float], y_ticks: list[float], x_name: str, is_share: bool) -> Html:
    parts = []
    for value in y_ticks:
        left, y = frame.at(frame.x[0], value)
        right, _ = frame.at(frame.x[1], value)
        parts.append(element("line", x1=_unit(left), x2=_unit(right), y1=_unit(y), y2=_unit(y), class_="grid"))
        parts.append(_text(left - 6, y + 4, number_text(value, is_share), "end"))
    for value in x_ticks:
        x, bottom = frame.at(value, frame.y[0])
        parts.append(element("line", x1=_unit(x), x2=_unit(x), y1=_unit(bottom), y2=_unit(bottom + 4), class_="tick"))
        parts.append(_text(x, bottom + 17, number_text(value), "middle"))
    middle, _ = frame.at((frame.x[0] + frame.x[1]) / 2, 0.0)
    return join([*parts, _text(middle, HEIGHT - 5, x_name, "middle")])


def _text(x: float, y: float, text: str, anchor: str) -> Html:
    return element("text", text, x=_unit(x), y=_unit(y), text_anchor=anchor)


def _unit(value: float) -> str:
    return f"{value:.1f}"
