"""report.html: one file that needs no network, runs no script, and opens from a disk."""

from __future__ import annotations

from pathlib import Path

from src.files import write_text
from src.report import sections
from src.report.content import Content
from src.report.html import Html, element, join

_STYLE = Path(__file__).with_name("report.css")
# Nothing is loaded and nothing runs, whatever the page may hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_report(target: Path, content: Content) -> None:
    """Write the page of a report in one step."""
    write_text(target, page(content))


def page(content: Content) -> str:
    """A report as HTML."""
    title = title_of(content)
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        # Our own, and the only text that is not escaped: a quote in CSS is one.
        element("style", Html(_STYLE.read_text(encoding="utf-8"))),
    ]
    evaluation = content.evaluation
    body = [
        element("header", element("h1", title), element("p", _origin(content), class_="note"), sections.tiles(content)),
        sections.curves(content),
        *([] if evaluation is None else [part(evaluation) for part in (sections.corruptions, sections.classes)]),
        Html() if evaluation is None else sections.calibration(evaluation),
        sections.mistakes(content.mistakes),
        sections.backends(content.backends),
        sections.data(content.splits, content.config),
        sections.settings(content),
    ]
    whole = [element("head", join(head, "\n")), element("body", element("main", join(body, "\n")))]
    return f"<!DOCTYPE html>\n{element('html', join(whole), lang='en')}\n"


def title_of(content: Content) -> str:
    """What was measured on what."""
    config = content.config
    name = config.data.set if config.evaluation.eval_set == "val" else config.evaluation.eval_set
    return f"{config.model.arch} on {name}"


def _origin(content: Content) -> Html:
    """Where the numbers come from."""
    parts: list[object] = [f"Made {content.made:%Y-%m-%d %H:%M} UTC"]
    if content.weights is not None:
        parts += [", weights ", element("code", content.weights), " (sha256 ", content.weights_sha256[:12], ")"]
    if content.manifest is not None:
        parts.append(f", epoch {content.manifest.epoch}, update {content.manifest.step:,}")
    if content.config.model.use_ema:
        parts.append(", moving average of the weights")
    return join([*parts, "."])
