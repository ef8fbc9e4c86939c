"""The page of a report: what it holds, for many classes and few, with and without a run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.files import sha256
from src.report.content import backends_of, content_of
from src.report.mistakes import data_uri, worst_mistakes
from src.report.page import page, write_report
from tests import small_run
from tests.report.evaluations import answers, content, evaluation
from tests.report.test_html import Seen

NAMES = ("ant", "bee", "cat")
NASTY = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "' onmouseover='window.hacked = 1",
    "</title></style><script>window.hacked = 1</script>",
    "&lt;b&gt; é 中 ✓ \u202e \x1b[31m",
    "javascript:window.hacked = 1",
)
HEADINGS = ["Learning curves", "Classes", "Confusion matrix", "Most frequent confusions", "Calibration"]
HEADINGS += ["Worst mistakes", "Backends", "Data", "Settings", "Versions"]
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "h1", "p", "code", "dl", "div", "dt", "dd"),
    *("b", "span", "section", "h2", "figure", "figcaption", "strong", "svg", "line", "text", "polyline", "circle"),
    *("rect", "table", "thead", "tbody", "tr", "th", "td", "em", "details", "summary", "img", "small"),
}


def headings(shown: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", shown)


def test_everything_has_its_place():
    shown = page(content(NAMES))
    assert headings(shown) == HEADINGS
    assert len(re.findall("<h1>", shown)) == 1
    assert shown.startswith("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")  # fmt: skip
    assert "<title>cct_7_3x1_32 on folder</title>" in shown
    assert "Made 2026-01-02 03:04 UTC" in shown
    # Three of four are right, of twelve.
    assert "<b>75.00 %</b> <span>95 % interval 46.77 to 91.11</span>" in shown
    assert "images/s, median of 3 epochs" in shown
    assert '<td class="number">2.50e-06</td>' in shown


def test_names_become_text_everywhere():
    made = content(NASTY)
    config = made.config.model_copy(update={"data": made.config.data.model_copy(update={"data_url": NASTY[0]})})
    rows = [{"backend": NASTY[0], "images": NASTY[1], "top1": NASTY[2]}]
    changed = {"config": config, "backends": rows, "versions": {NASTY[0]: NASTY[1]}, "weights": Path(NASTY[1])}
    seen = Seen(page(content(NASTY, **changed)))
    assert set(seen.tags) <= TAGS
    names = {name for name, _ in seen.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"href", "action", "srcset", "formaction", "poster"}
    assert {value[:11] for name, value in seen.attributes if name == "src"} == {"data:image/"}
    for name in NASTY[:4]:
        assert name in seen.text


def test_nothing_is_loaded():
    shown = page(content(NAMES))
    assert "default-src &#x27;none&#x27;; img-src data:; style-src &#x27;unsafe-inline&#x27;" in shown
    assert not re.findall(r"https?:|//[a-z]|url\(|@import", shown)


def test_a_thousand_classes_stay_readable():
    names = tuple(f"class {index}" for index in range(1000))
    shown = page(content(names))
    assert "Confusion matrix" not in headings(shown)
    assert "The 25 classes of the lowest F1; all of them below." in shown
    assert "<summary>All 1,000 classes</summary>" in shown
    assert "975 more pairs are confused less often." in shown
    assert len(shown) < 1_000_000


def test_a_run_without_evaluation_and_an_evaluation_without_a_run():
    bare = dict(evaluation=None, mistakes=[], backends=[], weights=None)
    assert headings(page(content(NAMES, **bare))) == ["Learning curves", "Data", "Settings", "Versions"]
    alone = page(content(NAMES, records=[], backends=[], splits=[]))
    assert headings(alone) == [name for name in HEADINGS if name not in {"Learning curves", "Backends", "Data"}]


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_short_runs(epochs):
    records = content(NAMES).records[: 3 * epochs] or content(NAMES).records[:1]
    shown = page(content(NAMES, records=records))
    assert shown.count("<svg") == (4 if epochs else 3)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", shown, flags=re.DOTALL).lower()


def test_images_of_several_labels_have_no_scores_by_class():
    accepted = (frozenset({0, 1}),) * 3
    made = evaluation(answers([0, 1, 2], [0, 1, 2]), name="imagenet_real", set={"accepted": accepted})
    shown = page(content(NAMES, evaluation=made))
    assert not {"Classes", "Calibration", "Confusion matrix"} & set(headings(shown))
    assert "<b>66.67 %</b>" in shown


def test_corruptions_have_their_table():
    made = evaluation(answers([0, 1, 2, 0], [0, 1, 2, 1]), set={"corruptions": {"fog": range(2), "snow": range(2, 4)}})
    shown = page(content(NAMES, evaluation=made))
    assert '<tr><th scope="row">snow</th><td class="number">50.00 %</td></tr>' in shown
    assert "it is no mCE" in shown


def test_the_worst_mistakes_come_first():
    data = small_run.write_images(Path("data"))
    images = evaluation(answers([0], [0])).eval_set.images
    names = [f"{small_run.CLASS_NAMES[index % 3]}/{index}.png" for index in range(7)]
    images = type(images)(data / "val", names, [index % 3 for index in range(7)], small_run.CLASS_NAMES)
    made = evaluation(answers([0, 1, 2, 0], [1, 1, 0, 2], [0.5, 0.9, 0.7, 0.6]), images=images)
    found = worst_mistakes(made)
    assert [(one.path, one.label, one.answer) for one in found] == [
        ("tri angle/2.png", "tri angle", "circle"),
        ("circle/3.png", "circle", "tri angle"),
        ("circle/0.png", "circle", "square"),
    ]
    assert [one.confidence for one in found] == [0.7, 0.6, 0.5]
    # What the network saw of it.
    assert found[0].image.size == (32, 32)
    assert len(worst_mistakes(made, 1)) == 1


def test_pictures_in_the_page():
    small, large = Image.new("RGB", (32, 20)), Image.effect_noise((300, 200), 50).convert("RGB")
    assert data_uri(small).startswith("data:image/png;base64,")
    assert data_uri(large).startswith("data:image/jpeg;base64,")
    assert len(data_uri(large)) < 20_000
    assert large.size == (300, 200)


@pytest.mark.parametrize("form", ["by path", "by content"])
def test_backends_count_for_their_own_weights(form):
    weights, path = Path("best.ckpt"), Path("out/verify.json")
    weights.write_bytes(b"weights")
    path.parent.mkdir()
    rows = [{"backend": "checkpoint", "top1": 1.0}]
    files = [{"backend": "checkpoint", "file": "elsewhere", "sha256": sha256(weights)}]
    found = {"rows": rows, **({"weights": "best.ckpt"} if form == "by path" else {"files": files})}
    path.write_text(json.dumps(found))
    assert backends_of(path, weights, sha256(weights)) == rows
    other = Path("other.ckpt")
    other.write_bytes(b"others")
    assert backends_of(path, other, sha256(other)) == []
    path.write_text("{")
    assert backends_of(path, weights, sha256(weights)) == []
    assert backends_of(Path("absent.json"), weights, sha256(weights)) == []


def test_what_lies_beside_the_weights_is_found():
    data = small_run.write_images(Path("data"))
    run = Path("out/ckpt_0")
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 1, "step": 3, "loss": 1.0}\n{"kind": "ep')
    config = small_run.config(data, Path("out"))
    prediction_N = answers([0, 1, 2], [0, 1, 2])
    made = evaluation(prediction_N, config=evaluation(prediction_N).config, weights=run / "best.ckpt")
    settings = made.config.model_copy(
        update={
            "data": config.data.model_copy(update={"mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": 1.0}),
            "model": config.model,
        }
    )
    found = content_of(type(made)(settings, made.weights, made.eval_set, made.result))
    assert [record["step"] for record in found.records] == [3]
    assert [(split.name, split.count_K.tolist()) for split in found.splits] == [
        ("train", [4, 4, 4]),
        ("val", np.array([1, 1, 1]).tolist()),
    ]
    write_report(Path("new/report.html"), found)
    assert Path("new/report.html").read_text(encoding="utf-8").endswith("</html>\n")
