"""A small trained network with its exported forms, and its images; a browser."""

from pathlib import Path

import pytest

from src.config import load_config
from src.deploy.exporter import export_model
from src.trainers.trainer import train
from tests import small_run
from tests.report.chromium import CHROMIUM

SIZES = {"arch": "cct_2_3x2_32", "image_size": 32, "depth": 1, "epochs": 1, "patch_size": None, "embed_dim": None}


class TrainedModel:
    """Weights, their exported forms, and class folders of images.

    Attributes:
        images: the folder of class folders.
        weights: the checkpoint.
        mindir: it, exported for single images.
        onnx: it, exported for three at a time.
    """

    def __init__(self, root: Path):
        self.root = root
        data = small_run.write_images(root / "data")
        self.images = data / "val"
        self.arguments = small_run.arguments(data, root, **SIZES)
        self.weights = train(load_config("train", self.arguments)) / "best.ckpt"
        self.mindir = self._export(batch_size=1)
        self.onnx = self._export(batch_size=3, file_format="ONNX")

    def _export(self, **flags: object) -> Path:
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        return export_model(load_config("export", [*self.arguments, "--pretrained", str(self.weights), *words]))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return TrainedModel(tmp_path_factory.mktemp("a model"))


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -r requirements-dev.txt")
    with playwright.sync_playwright() as driver:
        # As root, in a container, Chromium starts without its sandbox alone.
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
