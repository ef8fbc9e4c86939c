"""Text never becomes markup."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.report.html import Html, element, escaped, join, table


class Seen(HTMLParser):
    """Tags, attributes and text of a page, as a browser reads them."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


# Without what is replaced because it is no text.
plain_text = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf")), max_size=40)


@given(plain_text, plain_text)
def test_any_text_is_read_back(name, title):
    seen = Seen(element("td", name, title=title))
    assert (seen.tags, seen.text) == (["td"], name)
    assert seen.attributes == [("title", title)]


@pytest.mark.parametrize("text", ["\x00", "\x1b[31m", "\udcff", "\u202e", "\x7f"])
def test_what_is_no_text_is_replaced(text):
    shown = escaped(f"a{text}b")
    assert shown.startswith("a\ufffd")
    assert shown.endswith("b")
    shown.encode("utf-8")


def test_html_stays_and_parts_are_escaped_alone():
    assert element("p", "a < b ", element("b", "c & d"), class_="note", id=None) == (
        '<p class="note">a &lt; b <b>c &amp; d</b></p>'
    )
    assert join(["<", Html("<br>")], ", ") == "&lt;, <br>"
    assert element("img", src="x", aria_label="y", name="z") == '<img src="x" aria-label="y" name="z">'
    assert element("circle", cx=1) == '<circle cx="1"></circle>'


def test_a_table_says_its_headings():
    shown = table(("a", "b", "c"), [("x", "<1>", 2)], "numbers & more", texts=(0, 2))
    assert shown.startswith('<div class="scroll" tabindex="0" role="region" aria-label="numbers &amp; more"><table>')
    assert '<tr><th scope="row">x</th><td class="number">&lt;1&gt;</td><td>2</td></tr>' in shown
    assert '<th scope="col">a</th><th scope="col" class="number">b</th><th scope="col">c</th>' in shown
