"""HTML from Python calls: what is not HTML already becomes text, so no name can become markup.

element("td", name, class_="name")   <td class="name">a &lt;b&gt;</td>
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable

# Signs that are no text (controls, halves of pairs, bytes that are no UTF-8) or that turn the order of other text.
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_WITHOUT_END = {"img", "meta"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """Anything as text inside of HTML or of an attribute; HTML stays as it is."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(_NO_TEXT.sub("\ufffd", str(value)), quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one behind the other."""
    return Html(between.join(map(escaped, parts)))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """One element. Attributes that are None are left out; ``class_`` is class, ``stroke_width`` is stroke-width."""
    pairs = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None]
    begin = "".join([name, *(f' {key}="{escaped(value)}"' for key, value in pairs)])
    end = "" if name in _WITHOUT_END else f"</{name}>"
    return Html(f"<{begin}>{join(children)}{end}")


def table(
    heads: Iterable[object],
    rows: Iterable[Iterable[object]],
    label: str,
    texts: Collection[int] = (0,),
    is_tall: bool = False,
) -> Html:
    """A table that scrolls inside its own box where it is too wide; the first cell of a row is its heading.

    Args:
        heads: of the columns.
        rows: their cells.
        label: what the table is, for those who do not see it.
        texts: places of the columns that are text; the others are numbers.
        is_tall: give the box a height of its own.
    """

    def cell(place: int, content: object, name: str, scope: str | None = None) -> Html:
        return element(name, content, scope=scope, class_=None if place in texts else "number")

    head_row = element("tr", *(cell(place, head, "th", "col") for place, head in enumerate(heads)))
    body = []
    for first, *others in rows:
        cells = (cell(place, content, "td") for place, content in enumerate(others, start=1))
        body.append(element("tr", cell(0, first, "th", "row"), *cells))
    return scroll_box(element("table", element("thead", head_row), element("tbody", *body)), label, is_tall)


def scroll_box(content: Html, label: str, is_tall: bool = False) -> Html:
    """A box that scrolls by itself, with the keyboard too."""
    kind = "scroll tall" if is_tall else "scroll"
    return element("div", content, class_=kind, tabindex=0, role="region", aria_label=label)
