"""The page of a report in Chromium: nothing runs, nothing is loaded, everything can be read, on a phone too."""

from pathlib import Path

import pytest

from src.report.html import escaped
from src.report.page import write_report
from tests.report.chromium import CONTRASTS, DESKTOP, PHONE
from tests.report.evaluations import content
from tests.report.test_page import NASTY


@pytest.fixture
def opened(browser):
    """Opens a page at a width, and fails if it says anything, or asks for anything but itself and its pictures."""
    said, pages = [], []

    def open_page(target: Path, width: int):
        page = browser.new_page(viewport={"width": width, "height": 844})
        pages.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        wanted = target.resolve().as_uri()
        page.on("request", lambda asked: None if asked.url.startswith((wanted, "data:")) else said.append(asked.url))
        page.goto(wanted)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    target = tmp_path_factory.mktemp("report") / "few.html"
    write_report(target, content(NASTY))
    return target


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    target = tmp_path_factory.mktemp("report") / "many.html"
    write_report(target, content(tuple(f"class_{index}_with_a_long_name_that_has_no_blank" for index in range(1000))))
    return target


def test_names_run_nothing_and_are_read(opened, few):
    page = opened(few, DESKTOP)
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert page.locator("script, [onerror], [onmouseover], iframe, object, link").count() == 0
    text = page.locator("tbody").first.inner_text()
    for name in NASTY:
        assert (
            page.evaluate(
                "html => new DOMParser().parseFromString(html, 'text/html').body.textContent", str(escaped(name))
            )
            in text
        )
    assert page.title() == "cct_7_3x1_32 on folder"
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("which", ["few", "many"])
def test_the_page_is_as_wide_as_the_screen(opened, which, width, request):
    page = opened(request.getfixturevalue(which), width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # What is wider scrolls in a box of its own.
    is_outside = "!node.closest('.scroll') && node.getBoundingClientRect().right > innerWidth + 1"
    assert page.eval_on_selector_all("body *", f"nodes => nodes.filter(node => {is_outside}).length") == 0
    assert page.eval_on_selector_all("table", "nodes => nodes.filter(node => !node.closest('.scroll')).length") == 0
    boxes = "nodes => nodes.filter(node => node.scrollWidth > node.clientWidth + 1).length"
    assert (page.eval_on_selector_all(".scroll", boxes) > 0) == (width == PHONE)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_text_is_large_and_dark_enough(opened, few, width):
    page = opened(few, width)
    page.eval_on_selector_all("details", "nodes => nodes.forEach(node => node.open = true)")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 100
    # WCAG 2.2, level AA, for text of any size.
    assert [one for one in found if one[0] < 4.5] == []
    scale = page.eval_on_selector_all(
        "svg", "nodes => Math.min(...nodes.map(node => node.getBoundingClientRect().width / 360))"
    )
    assert min(size for _, size, html in found if not html.startswith("<text")) >= 12
    assert 12 * scale >= 10.5


def test_headings_are_in_order_and_pictures_have_words(opened, few):
    page = opened(few, DESKTOP)
    levels = page.eval_on_selector_all("h1, h2, h3, h4, h5, h6", "nodes => nodes.map(node => Number(node.tagName[1]))")
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    assert page.locator("img:not([alt]), img[alt=''], svg:not([aria-label])").count() == 0
    assert page.eval_on_selector_all("img", "nodes => nodes.every(node => node.complete && node.naturalWidth > 0)")
    assert page.locator("th:not([scope])").count() == 0


def test_boxes_scroll_by_keyboard(opened, many):
    page = opened(many, PHONE)
    box = page.locator(".scroll").first
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert box.evaluate("node => node.scrollLeft") > 0


def test_paper_shows_whole_tables(opened, few):
    page = opened(few, DESKTOP)
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    page.emulate_media(media="print")
    overflow = (
        "nodes => new Set(nodes.map(node => getComputedStyle(node).overflowX + getComputedStyle(node).maxHeight)).size"
    )
    assert page.eval_on_selector_all(".scroll", overflow) == 1
    assert page.locator(".scroll").first.evaluate("node => getComputedStyle(node).overflowX") == "visible"
