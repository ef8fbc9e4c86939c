"""The page of predict.py --serve without a browser: its answers, and one sentence for each request that is bad."""

import base64
import contextlib
import http.client
import io
import json
import logging
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.report import server
from src.report.predict_settings import read_command_line
from src.report.predictors import Predictor, open_predictor
from tests.command import command

for name in server.PACKAGES:
    pytest.importorskip(name.replace("-", "_"), reason="not installed: pip install -r requirements-dev.txt")

import uvicorn  # noqa: E402

from src.report import web  # noqa: E402

PNG = "image/png"
BOUNDARY = "a-boundary"


class Client:
    """Asks a page on a port, each time on a connection of its own."""

    def __init__(self, port: int):
        self.port = port

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(server.HOST, self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {}, encode_chunked=True)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def predict(self, content: bytes, field: str = 'image"; filename="any.name') -> tuple[int, dict]:
        """Status and answer for one field of a form; without a file's name it is text."""
        body = form(content, field)
        status, _, answer = self.ask("POST", "/predict", body, MULTIPART)
        return status, json.loads(answer)


MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
# The beginning of a request.
HALF = (
    f"POST /predict HTTP/1.1\r\nHost: {server.HOST}\r\nContent-Length: 5000\r\n"
    f"Content-Type: {MULTIPART['Content-Type']}\r\n\r\n--{BOUNDARY}\r\n"
).encode()


def form(content: bytes, field: str) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


@contextlib.contextmanager
def serving(predictor: Predictor, *words: object) -> Iterator[Client]:
    """The page on a port, in a thread; what is written to its log is passed on to the root's."""
    settings = read_command_line(["--serve", *map(str, words)]).settings
    app = web.make_app(predictor, settings)
    running = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="warning", lifespan="off", ws="none"))
    with contextlib.closing(server._listening(0)) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            running.should_exit = True
            thread.join()


def predictor_of(*words: object) -> Predictor:
    request = read_command_line(["--serve", *map(str, words)])
    return open_predictor(request.config, request.settings)


@pytest.fixture(scope="module")
def predictor(model):
    return predictor_of("--onnx", model.onnx)


@pytest.fixture(scope="module")
def client(model, predictor):
    with serving(predictor, "--onnx", model.onnx) as opened:
        yield opened


@pytest.fixture(scope="module")
def image(model) -> Path:
    return next(model.images.rglob("*.png"))


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


PICTURE = encoded(Image.effect_noise((64, 64), 50))


# ---------------------------------------------------------------------------------------------------------------------
# Answers


def test_the_page_needs_nothing_from_elsewhere(client, model):
    kinds = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
    texts = {}
    for path, kind in kinds.items():
        status, headers, content = client.ask("GET", path)
        assert (status, headers["content-type"].split(";")[0]) == (200, kind)
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in headers["content-security-policy"]
        texts[path] = content.decode()
        assert "//" not in texts[path].replace("// ", "")
        assert "$" not in texts[path].replace("${", "")
    for word in ("cct_2_3x2_32", "<dd>3</dd>", str(model.onnx)):
        assert word in texts["/"]


def test_names_on_the_page_are_text(model, predictor):
    odd = Predictor(**{**vars(predictor), "file": Path("<script>alert(1)</script>")})
    with serving(odd, "--onnx", model.onnx) as client:
        text = client.ask("GET", "/")[2].decode()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text


def test_the_answer_is_predicts(client, model, image):
    command("predict", "--onnx", model.onnx, image, "--json", "p.json")
    (expected,) = json.loads(Path("p.json").read_text())["images"]
    status, answer = client.predict(image.read_bytes())
    assert status == 200
    assert [one["class"] for one in answer["top"]] == [one["class"] for one in expected["top"]]
    for one, other in zip(answer["top"], expected["top"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
    assert answer["attention"] == []


def test_a_checkpoint_shows_where_it_looks(model, image):
    words = ("--pretrained", model.weights, "--top_k", 2, "--tta", "flip")
    with serving(predictor_of(*words), *words) as client:
        _, answer = client.predict(image.read_bytes())
    assert [one["name"] for one in answer["attention"]] == ["cct_sequence_pool", "cct_rollout"]
    assert len(answer["top"]) == 2
    command("predict", "--pretrained", model.weights, image, "--attention", "maps", "--tta", "flip", "--json", "p.json")
    (expected,) = json.loads(Path("p.json").read_text())["images"]
    assert answer["top"][0]["probability"] == pytest.approx(expected["top"][0]["probability"], abs=1e-6)
    for one in answer["attention"]:
        start, _, data = one["source"].partition(",")
        assert start == "data:image/png;base64"
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
        written = np.asarray(Image.open(f"maps/{image.name}.{one['name']}.png"))
        assert np.abs(picture - written).max() <= 1


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, kind) for mode in ("RGB", "L") for kind in ("JPEG", "PNG", "WEBP", "BMP")]
    + [("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("1", "PNG"), ("CMYK", "JPEG")],
)
def test_kinds_of_images(mode, kind, client):
    assert client.predict(encoded(Image.new(mode, (40, 30)), kind))[0] == 200


def test_a_file_of_the_largest_size_is_taken(client):
    # Zeros behind a picture are no part of it.
    content = encoded(Image.new("RGB", (9, 9)), "BMP").ljust(web.MOST_BYTES, b"\0")
    assert client.predict(content)[0] == 200
    sentence = "The file is too large: 20.0 MB, at most 20 MB are taken."
    assert client.predict(content + b"\0") == (413, {"error": sentence})


def test_one_image_at_a_time_has_the_network(model, predictor):
    inside, most = [], []
    may_end = threading.Event()

    def slow_logits(image_BCYX):
        inside.append(None)
        most.append(len(inside))
        may_end.wait(60)
        inside.pop()
        return predictor.logits(image_BCYX)

    slow = Predictor(**{**vars(predictor), "logits": slow_logits})
    with serving(slow, "--onnx", model.onnx) as client:
        found = []
        threads = [threading.Thread(target=lambda: found.append(client.predict(PICTURE)[0])) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not inside:
            time.sleep(0.01)
        # The page itself does not wait for the network.
        assert client.ask("GET", "/")[0] == 200
        time.sleep(0.3)
        may_end.set()
        for thread in threads:
            thread.join()
    assert (found, most) == ([200] * 3, [1] * 3)


# ---------------------------------------------------------------------------------------------------------------------
# Refusals

NO_IMAGE = "The file is not an image that can be read. Known: JPEG, PNG, WebP, BMP."
DAMAGED = "The image is damaged: it cannot be decoded to its end."


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header alone is true."""
    header = PICTURE[:16] + struct.pack(">II", width, height) + PICTURE[24:29]

    return header + struct.pack(">I", zlib.crc32(header[12:])) + PICTURE[33:]


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b"", 422, "The file is empty."),
        (b"text", 415, NO_IMAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, NO_IMAGE),
        (encoded(Image.new("RGB", (9, 9)), "GIF"), 415, NO_IMAGE),
        (encoded(Image.new("RGB", (9, 9)), "TIFF"), 415, NO_IMAGE),
        (PICTURE[:20], 415, NO_IMAGE),
        (PICTURE[: len(PICTURE) // 2], 422, DAMAGED),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:700], 422, DAMAGED),
        (png_of_size(0, 9), 415, NO_IMAGE),
        (
            encoded(Image.new("1", (8000, 8000))),
            413,
            "The image has too many pixels: 8000 x 8000, at most 50,000,000 are taken.",
        ),
        (
            png_of_size(10_000, 10_000),
            413,
            "The image has too many pixels: 10000 x 10000, at most 50,000,000 are taken.",
        ),
        (png_of_size(20_000, 20_000), 413, "The image has too many pixels: at most 50,000,000 are taken."),
        (
            encoded(Image.new("1", (1, 1_000_000))),
            422,
            "The image is too thin: 1 x 1000000, a side may be 100 times the other.",
        ),
    ],
    ids=[
        *("empty", "text", "SVG", "GIF", "TIFF", "header cut off", "PNG cut off", "JPEG cut off", "no pixels"),
        *("many pixels", "more pixels", "far too many pixels", "thin"),
    ],
)
def test_files_that_are_no_images(content, status, sentence, client, recwarn):
    assert client.predict(content) == (status, {"error": sentence})
    assert [str(one.message) for one in recwarn] == []


CHUNKED = {"Transfer-Encoding": "chunked"}
NO_FILE = "There is no file called image in the form."
NO_FORM = "The request is no form with a file. Known: multipart/form-data."
NO_PAGE = "There is no such page. Known: /, POST /predict."
NO_METHOD = "This page is not called in this way. Known: GET /, POST /predict."
NO_LENGTH = "The request does not say how long it is."


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "sentence"),
    [
        ("POST", "/predict", b"", {}, 415, NO_FORM),
        ("POST", "/predict", b'{"image": 1}', {"Content-Type": "application/json"}, 415, NO_FORM),
        ("POST", "/predict", PICTURE, {"Content-Type": PNG}, 415, NO_FORM),
        ("POST", "/predict", b"", MULTIPART, 422, NO_FILE),
        ("POST", "/predict", b"no form", MULTIPART, 400, "The form cannot be read."),
        ("POST", "/predict", b"--x", {"Content-Type": "multipart/form-data"}, 400, "The form cannot be read."),
        ("POST", "/predict", form(PICTURE, 'other"; filename="x'), MULTIPART, 422, NO_FILE),
        ("POST", "/predict", form(b"text", "image"), MULTIPART, 422, NO_FILE),
        ("POST", "/predict", [PICTURE], {**MULTIPART, **CHUNKED}, 411, NO_LENGTH),
        ("GET", "/", [PICTURE], CHUNKED, 411, NO_LENGTH),
        (
            "POST",
            "/predict",
            bytes(30_000_000),
            MULTIPART,
            413,
            "The file is too large: 30.0 MB, at most 20 MB are taken.",
        ),
        ("GET", "/predict", None, {}, 405, NO_METHOD),
        ("PUT", "/predict", b"", {}, 405, NO_METHOD),
        ("POST", "/", b"", {}, 405, NO_METHOD),
        ("GET", "/docs", None, {}, 404, NO_PAGE),
        ("GET", "/openapi.json", None, {}, 404, NO_PAGE),
        ("GET", "/..%2Fweb.py", None, {}, 404, NO_PAGE),
        ("GET", "/", None, {"Host": "evil.example"}, 421, "The page is at 127.0.0.1 and localhost alone."),
        ("GET", "/", None, {"Host": "127.0.0.1.evil.example"}, 421, "The page is at 127.0.0.1 and localhost alone."),
        ("POST", "/predict", b"", {"Origin": "http://evil.example"}, 403, "The request comes from another page."),
        ("POST", "/predict", b"", {"Origin": "null"}, 403, "The request comes from another page."),
    ],
)
def test_requests_that_are_bad(method, path, body, headers, status, sentence, client, caplog):
    found, answered, content = client.ask(method, path, body, headers)
    assert (found, json.loads(content)) == (status, {"error": sentence})
    assert "content-security-policy" in answered
    assert ("allow" in answered) == (status == 405)
    assert tracebacks(caplog) == []


def test_the_page_may_be_asked_by_its_other_name(client):
    host = f"localhost:{client.port}"
    headers = {**MULTIPART, "Host": host, "Origin": f"http://{host}"}
    assert client.ask("POST", "/predict", form(PICTURE, 'image"; filename="x'), headers)[0] == 200


def test_who_leaves_in_the_middle_is_forgotten(client, caplog):
    with socket.create_connection((server.HOST, client.port)) as leaving:
        leaving.sendall(HALF)
        time.sleep(0.2)
    time.sleep(0.2)
    assert client.predict(PICTURE)[0] == 200
    assert tracebacks(caplog) == []


@pytest.mark.parametrize(
    "head", ["", "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
def test_bytes_that_are_no_request(head, client, caplog):
    with socket.create_connection((server.HOST, client.port), timeout=60) as sending:
        sending.sendall(f"{head}neither this\r\n\r\n".encode())
        assert sending.recv(4096).startswith(b"HTTP/1.1 400 ")
    time.sleep(0.2)
    assert client.ask("GET", "/")[0] == 200
    assert tracebacks(caplog) == []


def test_numbers_that_are_none(model, predictor, caplog):
    broken = Predictor(**{**vars(predictor), "logits": lambda image_BCYX: np.full((1, 3), np.nan)})
    with serving(broken, "--onnx", model.onnx) as client:
        sentence = f"{model.onnx}: the network gives values that are not finite"
        assert client.predict(PICTURE) == (422, {"error": sentence})
    assert tracebacks(caplog) == []
