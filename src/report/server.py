"""predict.py --serve: the page's program on a port of this machine, which no other machine reaches."""

from __future__ import annotations

import contextlib
import socket

import numpy as np

from src.device import package_version
from src.errors import ConfigError
from src.report.predict_settings import Request
from src.report.predictors import Predictor, open_predictor

HOST = "127.0.0.1"
PACKAGES = ("fastapi", "uvicorn", "python-multipart")
_PORT = 8000
# Seconds that an image under way may take when the page is closed.
_GRACE = 5


def serve(request: Request) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        ConfigError: a package that the page needs is missing; the port is in use, or not for everyone.
        ModelFileError: as `open_predictor`.
        NumbersError: the network gives values that are not finite, whatever the image.
    """
    missing = [name for name in PACKAGES if package_version(name) is None]
    if missing:
        rule = "packages are missing, `pip install -r requirements-serve.txt` installs what is needed"
        raise ConfigError("--serve", rule, ", ".join(missing))
    import uvicorn

    from src.report.web import make_app

    settings = request.settings
    with contextlib.closing(_listening(_PORT if settings.port is None else settings.port)) as listener:
        predictor = open_predictor(request.config, settings)
        _warm_up(predictor, settings.attention_inner)
        options = dict(log_level="warning", lifespan="off", ws="none", server_header=False)
        app = make_app(predictor, settings)
        server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=_GRACE, **options))
        print(f"=> http://{HOST}:{listener.getsockname()[1]} shows the page, Ctrl-C ends it", flush=True)
        # It ends in order, then passes the signal on.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    print("=> the page is closed")


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    # A port whose last connections are still being forgotten is free.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        # Now, before the network is built: a second server would only fail then.
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError("--port", f"cannot be used: {error.strerror.lower()}", port) from None
    return listener


def _warm_up(predictor: Predictor, inner: bool) -> None:
    """Compile for one image now, not when the first one comes."""
    size = predictor.transform.image_size
    image_1CYX = np.zeros((1, 3, size, size), np.float32)
    predictor.probabilities(image_1CYX)
    if predictor.net is not None:
        predictor.attention(image_1CYX, inner)
