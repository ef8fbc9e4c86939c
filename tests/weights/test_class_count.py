"""Class counts that the user leaves to the weights or the images."""

from pathlib import Path

import pytest

from src.schema import Config
from src.weights.class_count import with_class_count
from src.weights.manifest import Manifest, write_manifest


def config(data: Path, kind: str = "folder", **model: object) -> Config:
    return Config.model_validate({"data": {"set": kind, "data_url": str(data)}, "model": model})


@pytest.fixture
def weights(tmp_path):
    """A manifest of seven classes."""
    manifest = Manifest(
        file="w.ckpt",
        bytes=0,
        sha256="",
        arch="",
        epoch=1,
        step=1,
        steps_per_epoch=1,
        metrics={},
        class_names=list("abcdefg"),
        shapes={},
        versions={},
        config={},
    )
    write_manifest(tmp_path / "w.ckpt", manifest)
    return str(tmp_path / "w.ckpt")


def folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


@pytest.mark.parametrize("below", ["", "train", "val"])
def test_class_folders_are_counted_without_hidden_ones(tmp_path, below):
    data = folders(tmp_path / "data", *(f"./{below}/{name}" for name in ("a", "b", "c", ".cache")))
    assert with_class_count(config(data), by_images=True).model.num_classes == 3


def test_a_given_count_stays(tmp_path, weights):
    data = folders(tmp_path / "data", "a", "b", "c")
    given = config(data, num_classes=5, pretrained=weights)
    assert with_class_count(given, by_images=True).model.num_classes == 5


def test_weights_are_asked_first_but_for_a_new_head(tmp_path, weights):
    given = config(folders(tmp_path / "data", "a", "b", "c"), pretrained=weights)
    assert with_class_count(given, by_images=True).model.num_classes == 7
    assert with_class_count(given, by_weights=False, by_images=True).model.num_classes == 3


def test_a_folder_that_a_command_does_not_open_says_nothing(tmp_path):
    folders(tmp_path / "data", "digits")
    foreign = config(tmp_path / "data", pretrained=str(tmp_path / "deit.pth"))
    assert with_class_count(foreign).model.num_classes is None


@pytest.mark.parametrize(("name", "kind"), [("nothing", "folder"), ("data", "ImageNet"), ("data", "list")])
def test_where_nothing_says_it_the_arch_does(tmp_path, name, kind):
    folders(tmp_path / "data", "a", "b", "c")
    assert with_class_count(config(tmp_path / name, kind), by_images=True).model.num_classes is None
