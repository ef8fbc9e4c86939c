"""predict.py --serve as a command: its flags, its port, its packages, its end."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from src.report import server
from tests.command import command
from tests.oracles import PROJECT

for name in server.PACKAGES:
    pytest.importorskip(name.replace("-", "_"), reason="not installed: pip install -r requirements-dev.txt")

from tests.report.test_web import HALF  # noqa: E402


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.png", "--strict"], "--serve: takes no images, and writes nothing. Received: a.png, --strict"),
        (["--csv", "p.csv"], "--serve: takes no images, and writes nothing. Received: --csv"),
        (["--port", "99999"], "--port: must be less than 65536. Received: 99999"),
        (["--port", "x"], "--port: must be a whole number. Received: x"),
        (["--attention_inner"], "--attention_inner: needs --pretrained: an exported file does not tell where it looks"),
    ],
)
def test_flags_that_do_not_go_together(words, expected, model):
    assert command("predict", "--serve", "--onnx", model.onnx, *words)[::2] == (2, [f"error: {expected}"])


def test_a_port_is_for_the_page(model):
    code, _, errors = command("predict", "--onnx", model.onnx, "a.png", "--port", 1)
    assert (code, errors) == (2, ["error: --port: is for --serve. Received: 1"])


def test_missing_packages_are_one_line(model, monkeypatch):
    monkeypatch.setattr(server, "package_version", lambda name: None if name in ("fastapi", "uvicorn") else "1")
    code, _, errors = command("predict", "--serve", "--onnx", model.onnx)
    assert code == 2
    assert errors == [
        "error: --serve: packages are missing, `pip install -r requirements-serve.txt` installs what is needed. "
        "Received: fastapi, uvicorn"
    ]


def test_the_packages_are_those_of_the_requirements():
    lines = (PROJECT / "requirements-serve.txt").read_text().splitlines()
    assert {line.split("==")[0] for line in lines if not line.startswith("#")} == set(server.PACKAGES)


def test_a_port_in_use_is_one_line(model):
    with socket.socket() as other:
        other.bind((server.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        code, _, errors = command("predict", "--serve", "--onnx", model.onnx, "--port", port)
    assert (code, errors) == (2, [f"error: --port: cannot be used: address already in use. Received: {port}"])


@pytest.mark.parametrize(("number", "is_sending"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_closes_the_page(number, is_sending, model):
    words = [sys.executable, "predict.py", "--serve", "--port", "0", "--onnx", model.onnx]
    process = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith(f"=> http://{server.HOST}:"), process.communicate()
    with urllib.request.urlopen(line.split()[1]) as page:
        assert page.status == 200
    # Of this machine's other addresses none answers.
    port = int(line.split()[1].rsplit(":", 1)[1])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)
    with contextlib.ExitStack() as stack:
        if is_sending:
            # And stops in the middle.
            stack.enter_context(socket.create_connection((server.HOST, port))).sendall(HALF)
            time.sleep(0.2)
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "=> the page is closed\n")
    # uvicorn says in a line what it has cut off.
    assert len(errors.splitlines()) == is_sending
