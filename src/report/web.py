"""The page of predict.py --serve, and the answers to its images.

Needs the packages of requirements-serve.txt. What comes is taken for the user's, but any page that the user's browser
has open can send it: other host names, other origins, large bodies and rare image formats are refused.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import string
import threading
import warnings
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

from src.data.transforms import decode_image
from src.errors import DataError, UserError
from src.report.html import escaped
from src.report.overlay import MAGMA, overlay
from src.report.predict_settings import PredictConfig
from src.report.prediction import Prediction
from src.report.predictors import Predictor
from src.report.server import HOST

MOST_BYTES = 20_000_000
MOST_PIXELS = 50_000_000
# The shorter side is resized to the network's: of a thread of pixels that would make a picture that fills the memory.
MOST_ASPECT = 100
# A form has a few hundred bytes besides its file.
FORM_BYTES = 10_000
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_PAGE = Path(__file__).with_name("web_page")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_SENTENCES = {
    400: "The form cannot be read.",
    404: "There is no such page. Known: /, POST /predict.",
    405: "This page is not called in this way. Known: GET /, POST /predict.",
}
Handler = Callable[[Request], Awaitable[Response]]


def make_app(predictor: Predictor, settings: PredictConfig) -> FastAPI:
    """The page at ``/``; ``POST /predict`` takes a form with the file ``image``, and answers in JSON.

    An answer holds ``top``, each with ``class`` and ``probability``, and ``attention``, each with ``name`` and
    ``source``, a PNG as data URL; a refusal has a status of 4xx, 503 while the page closes, and an
    ``error``, a sentence.
    """
    # Its own pages of documentation would be fetched from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_guard)
    app.exception_handler(AnyHTTPException)(_tell_status)
    app.exception_handler(RequestValidationError)(_tell_form)
    app.exception_handler(UserError)(_tell_error)
    for path, (kind, text) in _page(predictor).items():
        app.get(path)(_always(kind, text))
    # Requests come in threads of their own; one after the other has the network, and a picture in memory.
    turn = threading.Lock()

    @app.post("/predict")
    def answer(image: UploadFile) -> dict[str, Any]:
        if image.size > MOST_BYTES:
            raise _too_large(image.size)
        with turn:
            picture = _decoded(image.file.read(), predictor.exif_orientation)
            return _answer(predictor, settings, predictor.transform(picture))

    return app


def _page(predictor: Predictor) -> dict[str, tuple[str, str]]:
    """The type and text of each file of the page, by its path."""
    words = {
        "arch": predictor.arch,
        "count": len(predictor.class_names),
        "file": predictor.file,
        "most_bytes": MOST_BYTES,
        "most_megabytes": MOST_BYTES // 10**6,
    }
    html, css, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("index.html", "page.css", "page.js"))
    # The image is shown as the network sees it.
    orientation = "from-image" if predictor.exif_orientation else "none"
    return {
        "/": ("text/html", string.Template(html).substitute({key: escaped(word) for key, word in words.items()})),
        "/page.css": ("text/css", string.Template(css).substitute(magma=", ".join(MAGMA), orientation=orientation)),
        "/page.js": ("text/javascript", script),
    }


def _always(kind: str, text: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(text, media_type=kind)

    return answer


def _answer(predictor: Predictor, settings: PredictConfig, image_CYX: np.ndarray) -> dict[str, Any]:
    image_1CYX = image_CYX[None]
    found = Prediction.of("", predictor.probabilities(image_1CYX, settings.tta)[0], settings.top_k)
    pairs = zip(found.classes, found.probabilities, strict=True)
    maps = {} if predictor.net is None else predictor.attention(image_1CYX, settings.attention_inner)
    return {
        "top": [{"class": predictor.class_names[k], "probability": probability} for k, probability in pairs],
        "attention": [
            {"name": name, "source": _data_url(overlay(image_CYX, predictor.transform, map_1YX[0]))}
            for name, map_1YX in maps.items()
        ],
    }


def _data_url(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _decoded(content: bytes, exif_orientation: bool) -> Image.Image:
    """The image in RGB.

    Raises:
        HTTPException: not an image (415), of too many pixels (413), too thin or damaged (422).
    """
    if not content:
        raise HTTPException(422, "The file is empty.")
    with warnings.catch_warnings():
        # About what is refused, or shown, anyway.
        warnings.simplefilter("ignore")
        width, height = _size_of(content)
        if width * height > MOST_PIXELS:
            rule = f"The image has too many pixels: {width} x {height}, at most {MOST_PIXELS:,} are taken."
            raise HTTPException(413, rule)
        if max(width, height) > MOST_ASPECT * min(width, height):
            rule = f"The image is too thin: {width} x {height}, a side may be {MOST_ASPECT} times the other."
            raise HTTPException(422, rule)
        try:
            return decode_image(io.BytesIO(content), "image", exif_orientation, _FORMATS)
        except DataError:
            raise HTTPException(422, "The image is damaged: it cannot be decoded to its end.") from None


def _size_of(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header alone."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            return opened.size
    except Image.DecompressionBombError:
        raise HTTPException(413, f"The image has too many pixels: at most {MOST_PIXELS:,} are taken.") from None
    except Exception:  # whatever a decoder of PIL's thinks of
        raise HTTPException(415, "The file is not an image that can be read. Known: JPEG, PNG, WebP, BMP.") from None


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


async def _guard(request: Request, handle: Handler) -> Response:
    """Refuse by the headers, before a body is read; the server holds a body to the length that is announced."""
    if _is_in_chunks(request):
        # uvicorn 0.54 raises where bad chunks come after the answer: hear them out.
        with contextlib.suppress(ClientDisconnect):
            async for _ in request.stream():
                pass
    refusal = _fault_of(request)
    try:
        response = await handle(request) if refusal is None else await _tell_status(request, refusal)
    except asyncio.CancelledError:
        # The time that uvicorn leaves to what is under way is over; it would print where it cut it off.
        response = _refusal(503, "The page is being closed.")
    response.headers.update(_HEADERS)
    return response


def _fault_of(request: Request) -> HTTPException | None:
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    # A page whose own name leads to this machine is let through by browsers, and sends that name.
    if host.partition(":")[0] not in (HOST, "localhost"):
        return HTTPException(421, f"The page is at {HOST} and localhost alone.")
    if origin not in (None, f"http://{host}"):
        return HTTPException(403, "The request comes from another page.")
    length = request.headers.get("content-length", "")
    if _is_in_chunks(request) or (request.method == "POST" and not length.isdigit()):
        return HTTPException(411, "The request does not say how long it is.")
    if length and int(length) > MOST_BYTES + FORM_BYTES:
        return _too_large(int(length))
    return None


def _is_in_chunks(request: Request) -> bool:
    """Whether the body ends where it says so, whatever length is announced."""
    return "transfer-encoding" in request.headers


def _too_large(size: int) -> HTTPException:
    rule = f"The file is too large: {size / 1e6:.1f} MB, at most {MOST_BYTES // 10**6} MB are taken."
    return HTTPException(413, rule)


async def _tell_status(_: Request, error: AnyHTTPException) -> Response:
    return _refusal(error.status_code, _SENTENCES.get(error.status_code, str(error.detail)), error.headers)


async def _tell_form(request: Request, _: RequestValidationError) -> Response:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return _refusal(415, "The request is no form with a file. Known: multipart/form-data.")
    return _refusal(422, "There is no file called image in the form.")


async def _tell_error(_: Request, error: UserError) -> Response:
    return _refusal(422, error.lines[0])


def _refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status, headers)
