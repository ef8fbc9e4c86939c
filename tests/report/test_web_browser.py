"""The page of predict.py --serve in Chromium: what is chosen, dropped, pasted, on a desktop, a phone, by keyboard."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.report import server
from tests.oracles import PROJECT
from tests.report.chromium import CHROMIUM, CONTRASTS, DESKTOP, PHONE

for name in (*server.PACKAGES, "playwright"):
    pytest.importorskip(name.replace("-", "_"), reason="not installed: pip install -r requirements-dev.txt")

from playwright.sync_api import Page, expect  # noqa: E402

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

LONG_NAME = "a-very-long-class-name-without-any-blank-that-no-phone-has-room-for, and then some words"
CLASS_NAMES = ["<b onclick=alert(1)>tag</b>", LONG_NAME, "short"]
MILLISECONDS = 120_000
# What a drag hands to the page.
TRANSFER = """files => {
  const transfer = new DataTransfer();
  for (const [name, bytes, type] of files) transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
  return transfer;
}"""


def serve(*words: object) -> Iterator[str]:
    """The address of a page in a process of its own, which has to end well."""
    command = [sys.executable, "predict.py", "--serve", "--port", "0", *map(str, words)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stdout if line.startswith("=> http"))
        yield line.split()[1]
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    """Of a page whose network has classes with a tag and a long name."""
    folder = tmp_path_factory.mktemp("weights")
    for path in model.weights.parent.glob("best.*"):
        shutil.copy(path, folder)
    manifest = json.loads((folder / "best.json").read_text())
    manifest["class_names"] = CLASS_NAMES
    (folder / "best.json").write_text(json.dumps(manifest))
    yield from serve("--pretrained", folder / "best.ckpt")


@pytest.fixture(scope="module")
def address_of_onnx(model):
    yield from serve("--onnx", model.onnx)


@pytest.fixture
def open_page(browser):
    """Opens an address at a width; fails if the page says anything, or asks for anything from elsewhere."""
    said, contexts = [], []

    def opened(address: str, width: int, **options: str) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        contexts.append(context)
        context.set_default_timeout(MILLISECONDS)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        own = (f"{address}/", f"blob:{address}/", "data:")
        page.on("request", lambda asked: None if asked.url.startswith(own) else said.append(asked.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    # Chromium itself tells of every answer that is a refusal.
    assert [one for one in said if "Failed to load resource" not in one] == []


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request, open_page, address):
    return open_page(address, request.param)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A landscape as cameras make them."""
    path = tmp_path_factory.mktemp("images") / f"{'holiday' * 20} ü <i>.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((900, 600)).save(path)
    return path


def choose(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)
    expect(page.locator("#status")).not_to_contain_text("Looking", timeout=MILLISECONDS)


def drop(page: Page, *files: tuple[str, bytes, str]) -> None:
    """Let files, of a name, a content and a type, fall on the page's heading, as a browser does."""
    transfer = page.evaluate_handle(TRANSFER, [[name, list(content), kind] for name, content, kind in files])
    for event in ("dragover", "drop"):
        page.dispatch_event("h1", event, {"dataTransfer": transfer})
    expect(page.locator("#status")).not_to_contain_text("Looking", timeout=MILLISECONDS)


def assert_fits(page: Page) -> None:
    """Nothing sticks out to the side, and all text is large enough and has AA contrast."""
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    is_outside = "node.getBoundingClientRect().right > innerWidth + 1"
    assert page.eval_on_selector_all("body *", f"nodes => nodes.filter(node => {is_outside}).length") == 0
    found = page.evaluate(CONTRASTS)
    assert len(found) >= 8
    assert [one for one in found if one[0] < 4.5 or one[1] < 12] == []


def test_an_image_is_chosen(page, wide):
    assert_fits(page)
    choose(page, wide)
    bars = page.locator("#bars li")
    expect(bars).to_have_count(3)
    shares = [float(text.removesuffix(" %")) for text in page.locator("#bars .percent").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.02)
    tracks, widths = (
        [box.bounding_box()["width"] for box in page.locator(f"#bars .{kind}").all()] for kind in ("track", "share")
    )
    for share, track, width in zip(shares, tracks, widths, strict=True):
        assert width == pytest.approx(track * share / 100, abs=1)
    names = page.locator("#bars .name").all_inner_texts()
    assert sorted(names) == sorted(CLASS_NAMES)
    expect(page.locator("#status")).to_have_text(f"{wide.name}: {names[0]}, {shares[0]:.2f} %")
    expect(page.locator("#name")).to_have_text(wide.name)
    for picture, width in (("#preview", 900), ("#overlay", 448)):
        assert page.locator(picture).evaluate("one => one.decode().then(() => one.naturalWidth)") == width
    expect(page.locator("#no-attention")).to_be_hidden()
    assert_fits(page)
    # Beside each other where there is room, below each other where there is none.
    classes, pictures = (page.locator(name).bounding_box() for name in ("#classes", "#pictures"))
    is_desktop = page.viewport_size["width"] == DESKTOP
    assert (classes["x"] > pictures["x"] + pictures["width"] - 1) == is_desktop
    assert (classes["y"] > pictures["y"] + pictures["height"] - 1) != is_desktop


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light(scheme, open_page, address, wide):
    page = open_page(address, PHONE, color_scheme=scheme)
    luminance = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    assert (page.evaluate(luminance) < 64) == (scheme == "dark")
    choose(page, wide)
    assert_fits(page)
    drop(page, ("text.png", b"text", "image/png"))
    expect(page.locator("#status.alarm")).to_be_visible()
    assert_fits(page)


def test_an_exported_file_says_why_it_shows_no_attention(open_page, address_of_onnx, wide):
    page = open_page(address_of_onnx, DESKTOP)
    choose(page, wide)
    expect(page.locator("#bars li")).to_have_count(3)
    expect(page.locator("#attention")).to_be_hidden()
    expect(page.locator("#no-attention")).to_contain_text("an exported file does not tell where its network looks")
    assert_fits(page)


def test_the_keyboard_is_enough(page, wide):
    # Asked for well before the key: Chromium hands choosers over a moment later.
    page.on("filechooser", lambda chooser: chooser.set_files(wide))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    assert page.locator("#drop").evaluate("one => getComputedStyle(one).outlineWidth") == "3px"
    page.wait_for_timeout(500)
    page.keyboard.press("Enter")
    expect(page.locator("#bars li")).to_have_count(3, timeout=MILLISECONDS)
    page.locator("#file").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "map"
    before = page.locator("#overlay").get_attribute("src")
    expect(page.locator("#map option:checked")).to_have_text("sequence pool")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#map option:checked")).to_have_text("rollout")
    assert page.locator("#overlay").get_attribute("src") != before


def test_everything_has_a_name_for_those_who_do_not_see_it(page, wide):
    choose(page, wide)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    for role, label in (
        ("button", "Choose an image"),
        ("combobox", "Attention"),
        ("list", "Most probable"),
        ("region", "Answer"),
    ):
        expect(page.get_by_role(role, name=label)).to_have_count(1)
    expect(page.get_by_role("status")).to_contain_text("%")


def test_what_is_dropped_beside_the_field_counts(page, model):
    content = next(model.images.rglob("*.png")).read_bytes()
    drop(page, ("dropped.png", content, "image/png"))
    expect(page.locator("#status")).to_contain_text("dropped.png: ")
    expect(page.locator("#bars li")).to_have_count(3)
    expect(page.locator(".dragging")).to_have_count(0)
    drop(page, *[("dropped.png", content, "image/png")] * 2)
    expect(page.locator("#status")).to_have_text("One image at a time: these are 2.")
    drop(page)
    expect(page.locator("#status")).to_have_text("There is no image file in it.")


def test_what_is_pasted_counts(page, model):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    content = next(model.images.rglob("*.png")).read_bytes()
    page.evaluate(
        """bytes => {
          const image = new Blob([new Uint8Array(bytes)], { type: "image/png" });
          return navigator.clipboard.write([new ClipboardItem({ "image/png": image })]);
        }""",
        list(content),
    )
    page.keyboard.press("Control+V")
    expect(page.locator("#status")).to_contain_text("image.png: ", timeout=MILLISECONDS)
    expect(page.locator("#bars li")).to_have_count(3)
    page.evaluate("navigator.clipboard.writeText('text')")
    page.keyboard.press("Control+V")
    expect(page.locator("#status")).to_have_text("There is no image file in it.")


def test_what_cannot_be_read_is_said(page, wide, tmp_path):
    choose(page, wide)
    drop(page, ("text.png", b"text", "image/png"))
    status = page.locator("#status")
    expect(status).to_have_text("The file is not an image that can be read. Known: JPEG, PNG, WebP, BMP.")
    # An answer to another image must not stand below it.
    expect(page.locator("#result")).to_be_hidden()
    assert_fits(page)
    large = tmp_path / "large.png"
    large.write_bytes(bytes(20_100_000))
    choose(page, large)
    expect(status).to_have_text("The file is too large: 20.1 MB, at most 20 MB are taken.")
    choose(page, wide)
    expect(status).to_contain_text(wide.name)
    expect(page.locator("#result")).to_be_visible()


def test_the_last_image_has_the_page(open_page, address, wide, model):
    page = open_page(address, DESKTOP)
    held = []
    page.route("**/predict", lambda route: held.append(route))
    page.set_input_files("#file", wide)
    page.wait_for_function("document.getElementById('status').textContent.startsWith('Looking')")
    image = next(model.images.rglob("*.png"))
    page.set_input_files("#file", image)
    page.wait_for_function(f"document.getElementById('status').textContent.includes({image.name!r})")
    while len(held) < 2:
        page.wait_for_timeout(50)
    for route, name in zip(reversed(held), ("second", "first"), strict=True):
        with page.expect_response("**/predict"):
            route.fulfill(json={"top": [{"class": name, "probability": 1.0}], "attention": []})
        page.wait_for_timeout(200)
        expect(page.locator("#name")).to_have_text(image.name)
        expect(page.locator("#bars .name")).to_have_text("second")


def test_a_server_that_is_gone_is_said(page, wide):
    page.route("**/predict", lambda route: route.abort())
    choose(page, wide)
    expect(page.locator("#status")).to_have_text("The server does not answer: is predict.py still running?")
