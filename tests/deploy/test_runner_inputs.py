"""preprocess.py: the evaluation transform's numbers, one file per image, nothing of others removed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.transforms import read_image
from src.deploy import runner_inputs
from src.deploy.model_info import TransformInfo
from src.deploy.results import class_names, read_labels
from src.deploy.runner_inputs import PreprocessConfig, preprocess
from src.errors import DataError, ModelFileError
from tests import small_run
from tests.data.images import cifar_labels, cifar_pixels, write_cifar
from tests.deploy.descriptions import TRANSFORM, description


@pytest.fixture
def data(tmp_path):
    return small_run.write_images(tmp_path / "data") / "val"


def describe(path: Path, class_names: list[str] | None, num_classes: int) -> Path:
    info = description(num_classes=num_classes, class_names=class_names)
    path.write_text(info.model_dump_json())
    return path


def run(data: Path, tmp_path: Path, names: list[str] | None = None, num_classes: int = 3, **flags: object) -> Path:
    info = describe(tmp_path / "x.json", names, num_classes)
    output = tmp_path / "out put"
    return preprocess(PreprocessConfig(data_path=str(data), model_info=str(info), output_path=str(output), **flags))


def test_files_hold_the_evaluation_transform(data, tmp_path, capsys):
    names = ["circle", "other", "square", "tri angle"]
    output = run(data, tmp_path, names, 4)
    assert json.loads((output / "class_names.json").read_text()) == names
    labels = json.loads((output / "imagenet_label.json").read_text())
    assert len(labels) == small_run.NUM_VAL
    assert {name.split("/")[0]: label for name, label in labels.items()} == {"circle": 0, "square": 2, "tri angle": 3}
    for name in labels:
        array_CYX = np.fromfile(output / "img_data" / f"{name.removesuffix('.png')}.bin", np.float32)
        np.testing.assert_array_equal(array_CYX.reshape(3, 16, 16), TRANSFORM(read_image(data / name)))
    assert capsys.readouterr().out == "[INFO] Completed! Total 7 data.\n"


def test_images_are_turned_as_for_the_exported_network(data, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    with Image.open(data / "circle" / "0.png") as image:
        image.save(data / "circle" / "0.png", exif=exif)
    output = tmp_path / "o"
    for is_turned in (False, True):
        info = description(transform=TransformInfo.of(TRANSFORM, is_turned))
        (tmp_path / "x.json").write_text(info.model_dump_json())
        preprocess(PreprocessConfig(data_path=str(data), model_info=str(tmp_path / "x.json"), output_path=str(output)))
        array_CYX = np.fromfile(output / "img_data" / "circle" / "0.bin", np.float32).reshape(3, 16, 16)
        expected = TRANSFORM(read_image(data / "circle" / "0.png", exif_orientation=is_turned))
        np.testing.assert_array_equal(array_CYX, expected)


def test_unreadable_images_are_named_and_left_out(data, tmp_path, capsys):
    (data / "circle" / "0.png").write_bytes(b"no image")
    output = run(data, tmp_path)
    assert len(json.loads((output / "imagenet_label.json").read_text())) == small_run.NUM_VAL - 1
    assert not (output / "img_data" / "circle" / "0.bin").exists()
    assert "0.png: not an image" in capsys.readouterr().err
    with pytest.raises(DataError, match="not an image"):
        run(data, tmp_path, strict=True)


def test_own_files_of_an_earlier_call_go_and_others_stay(data, tmp_path):
    output = run(data, tmp_path)
    other = output / "img_data" / "notes.txt"
    other.write_text("mine")
    (data / "circle" / "0.png").unlink()
    run(data, tmp_path)
    assert not (output / "img_data" / "circle" / "0.bin").exists()
    assert other.read_text() == "mine"


def test_without_description_imagenet_is_assumed(data, tmp_path, capsys):
    output = preprocess(PreprocessConfig(data_path=str(data), output_path=str(tmp_path / "o")))
    path = output / "img_data" / "circle" / "0.bin"
    expected = runner_inputs.IMAGENET(read_image(data / "circle" / "0.png"))
    np.testing.assert_array_equal(np.fromfile(path, np.float32), expected.ravel())
    assert "no --model_info" in capsys.readouterr().err


def test_what_is_refused(data, tmp_path):
    with pytest.raises(DataError, match=r"lacks.*circle"):
        run(data, tmp_path, ["square", "tri angle", "x"])
    with pytest.raises(DataError, match="without names"):
        run(data, tmp_path, None, 5)
    with pytest.raises(DataError, match="must hold class folders"):
        run(data.parent, tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        run(tmp_path / "absent", tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        run(tmp_path / "absent", tmp_path, dataset_name="cifar10")
    with pytest.raises(DataError, match="data_path: must be the unpacked folder of CIFAR10"):
        run(data, tmp_path, dataset_name="cifar10")
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(ModelFileError, match="description"):
        preprocess(PreprocessConfig(data_path=str(data), model_info=str(tmp_path / "y.json")))


# ---------------------------------------------------------------------------------------------------------------------
# CIFAR-10

CIFAR_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("above", [False, True])
def test_cifars_test_images(version, above, tmp_path, capsys):
    count, seed = 12, 5
    folder = write_cifar(tmp_path / "data", "CIFAR10", version, count)
    # The model has its classes in another order.
    own = list(CIFAR_NAMES[::-1])
    output = run(folder.parent if above else folder, tmp_path, own, 10, dataset_name="cifar10")
    labels = json.loads((output / "imagenet_label.json").read_text())
    wanted = cifar_labels("CIFAR10", seed, count)
    # The names and the folder of labels are those of the zoo's ViT.
    names = [f"vit_base_cifar10_1_{row}.bin" for row in range(count)]
    assert labels == {name: own.index(CIFAR_NAMES[k]) for name, k in zip(names, wanted, strict=True)}
    assert {name: np.fromfile(output / "label" / name, np.int32).tolist() for name in names} == {
        name: [label] for name, label in labels.items()
    }
    assert read_labels(output / "label") == labels
    assert class_names(output / "label", labels, 10) == own
    for name, pixel_CYX in zip(labels, cifar_pixels(seed, count), strict=True):
        array_CYX = np.fromfile(output / "img_data" / name, np.float32).reshape(3, 16, 16)
        np.testing.assert_array_equal(array_CYX, TRANSFORM(Image.fromarray(pixel_CYX.transpose(1, 2, 0))))
    assert len(list((output / "img_data").rglob("*"))) == count
    said = f"{'=' * 20} export bin files finished {'=' * 20}\n[INFO] Completed! Total 12 data.\n"
    assert capsys.readouterr().out == said


def test_labels_of_another_model_replace_those_that_are_there(tmp_path):
    folder = write_cifar(tmp_path / "data", "CIFAR10", "binary", 12)
    for names in (list(CIFAR_NAMES), list(CIFAR_NAMES[::-1])):
        output = run(folder, tmp_path, names, 10, dataset_name="cifar10")
        labels = json.loads((output / "imagenet_label.json").read_text())
        assert read_labels(output / "label") == labels
        assert list(labels.values()) == [names.index(CIFAR_NAMES[k]) for k in cifar_labels("CIFAR10", 5, 12)]


def test_a_cifar_folder_without_its_test_images(tmp_path):
    folder = write_cifar(tmp_path / "data", "CIFAR10", "binary")
    (folder / "test_batch.bin").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match="whole number of records"):
        run(folder, tmp_path, dataset_name="cifar10")
    assert not (tmp_path / "out put").exists()
