"""predict.py: its numbers are eval.py's, from every backend; what it writes; images and names that make trouble."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image, ImageOps

from src.config import load_config
from src.data.build import eval_batches_of
from src.data.loader import open_reader, read_eval
from src.data.sources import open_split
from src.models import build_configured_model, resolved
from src.report import prediction
from src.report.predict_settings import read_command_line
from src.report.prediction import Prediction, picture_path, predict
from src.weights.load import load_given_weights
from src.weights.write import write_ckpt
from tests import small_run
from tests.command import command
from tests.networks import fill, values
from tests.oracles import PROJECT

# Of probabilities, from other batch sizes and backends, in float32.
SAME = 1e-5
DIGITS = PROJECT / "configs" / "cct_2_3x2_digits.yaml"


def predictions(*words: object) -> list[Prediction]:
    return predict(read_command_line([str(word) for word in words]))


def by_image(found: list[Prediction]) -> dict[str, np.ndarray]:
    """Probabilities (K,) in the order of the classes, of predictions that name all of them."""
    return {one.image: np.array(one.probabilities)[np.argsort(one.classes)] for one in found}


def assert_same(found: list[Prediction], expected: dict[str, np.ndarray], tolerance: float = SAME) -> None:
    assert by_image(found).keys() == expected.keys()
    for name, probability_K in by_image(found).items():
        np.testing.assert_allclose(probability_K, expected[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def expected(model) -> dict[str, np.ndarray]:
    """Soft-max of the logits of eval.py's network on eval.py's batches."""
    config = resolved(load_config("eval", [*model.arguments, "--pretrained", str(model.weights)]))
    net = build_configured_model(config.model).set_train(False)
    load_given_weights(net, config.model)
    images = open_split(config.data, "val", 3)
    with open_reader(0, val=eval_batches_of(config, images)) as reader:
        logits = [net(Tensor(batch.image_BCYX)).asnumpy()[~batch.is_padding_B] for batch in read_eval(reader)]
    power_NK = np.exp(np.concatenate(logits).astype(np.float64))
    return {str(images.file(i)): power_K / power_K.sum() for i, power_K in enumerate(power_NK)}


def test_probabilities_are_evals(model, expected):
    found = predictions("--pretrained", model.weights, model.images)
    assert_same(found, expected)
    assert [one.classes[0] for one in found] == [int(expected[one.image].argmax()) for one in found]
    assert max(abs(sum(one.probabilities) - 1) for one in found) < 1e-12
    assert all(list(one.probabilities) == sorted(one.probabilities, reverse=True) for one in found)


@pytest.mark.parametrize("backend", ["mindir", "onnx"])
def test_backends_agree(backend, model, expected):
    assert_same(predictions(f"--{backend}", getattr(model, backend), model.images), expected)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_makes_no_difference(batch_size, model, expected):
    assert_same(predictions("--pretrained", model.weights, model.images, "--batch_size", batch_size), expected)


def test_neither_do_processes(model, expected, monkeypatch):
    monkeypatch.setattr(prediction, "_WORTH_WORKERS", 1)
    words = ("--pretrained", model.weights, model.images, "--num_parallel_workers", 2, "--batch_size", 2)
    assert_same(predictions(*words), expected)


def test_top_1_is_evals_on_the_digits():
    config = resolved(load_config("eval", ["--config", str(DIGITS)]))
    write_ckpt(Path("weights.ckpt"), values(fill(build_configured_model(config.model), "unit")))
    words = ("--config", DIGITS, "--data_url", "digits", "--pretrained", "weights.ckpt")
    code, lines, _ = command("eval", *words, "--num_parallel_workers", 0)
    assert code == 0
    right = next(int(match[1]) for line in lines if (match := re.match(r"(\d+) of 360 images right", line)))
    code, lines, _ = command("predict", *words, "digits/val", "--json", "p.json", "--top_k", 1)
    assert code == 0
    assert "=> class names of digits/val" in lines
    images = json.loads(Path("p.json").read_text())["images"]
    assert len(images) == 360
    assert sum(Path(one["image"]).parent.name == one["top"][0]["class"] for one in images) == right


def test_flip_is_the_mean_over_an_image_and_its_mirror_image(model):
    Path("two").mkdir()
    image = Image.open(next(model.images.rglob("*.png"))).resize((32, 32))
    image.save("two/1.png")
    ImageOps.mirror(image).save("two/2.png")
    alone = by_image(predictions("--pretrained", model.weights, "two"))
    mean_K = (alone["two/1.png"] + alone["two/2.png"]) / 2
    both = predictions("--pretrained", model.weights, "two", "--tta", "flip")
    assert_same(both, {"two/1.png": mean_K, "two/2.png": mean_K})
    assert np.abs(alone["two/1.png"] - mean_K).max() > 10 * SAME


# ---------------------------------------------------------------------------------------------------------------------
# What is printed and written


@pytest.fixture
def photos(model) -> Path:
    """A folder of two images whose names make trouble."""
    source = sorted(model.images.rglob("*.png"))
    Path("photos").mkdir()
    shutil.copy(source[0], "photos/a b.png")
    shutil.copy(source[1], 'photos/line\nbreak \x1b[31m ü,".png')
    return Path("photos")


def test_table_csv_and_json_say_the_same(model, photos):
    files = ("--csv", "out/p.csv", "--json", "out/p.json")
    code, lines, _ = command("predict", "--onnx", model.onnx, photos, "--top_k", 2, *files)
    assert code == 0
    tree = json.loads(Path("out/p.json").read_text())
    with open("out/p.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    table = lines[lines.index(next(line for line in lines if line.split() == ["image", "class", "probability"])) + 1 :]
    assert (len(table), len(rows), len(tree["images"])) == (4, 2, 2)
    names = ["photos/a b.png", 'photos/line\nbreak \x1b[31m ü,".png']
    assert [one["image"] for one in tree["images"]] == [row["image"] for row in rows] == names
    for number, (one, row) in enumerate(zip(tree["images"], rows, strict=True)):
        for place, top in enumerate(one["top"], 1):
            assert small_run.CLASS_NAMES[top["index"]] == top["class"] == row[f"class_{place}"]
            assert top["probability"] == float(row[f"probability_{place}"])
            line = table[2 * number + place - 1]
            assert line.startswith(("photos/a b.png ", repr(names[1]))[number] if place == 1 else " ")
            assert line.endswith(f"{top['probability']:>11.2%}")
            assert f"  {top['class']}  " in line
    assert not any("\x1b" in line for line in lines)
    assert (tree["arch"], tree["file"], tree["tta"]) == ("cct_2_3x2_32", str(model.onnx), "none")


def test_class_names_stay_on_their_lines(model, photos):
    for path in model.root.glob("*.onnx*"):
        shutil.copy(path, ".")
    info = Path(f"{model.onnx.name}.json")
    class_names = ["\x1b]0;title\a", "two\nlines", "ок"]
    info.write_text(json.dumps({**json.loads(info.read_text()), "class_names": class_names}))
    code, lines, _ = command("predict", "--onnx", model.onnx.name, photos / "a b.png", "--json", "p.json")
    assert code == 0
    assert sorted(line.split()[-2] for line in lines[-3:]) == ["'\\x1b]0;title\\x07'", "'two\\nlines'", "ок"]
    (one,) = json.loads(Path("p.json").read_text())["images"]
    assert sorted(top["class"] for top in one["top"]) == sorted(class_names)


def test_names_that_are_no_text(model, photos):
    name = os.fsdecode(b"photos/\xff.png")
    os.rename("photos/a b.png", name)
    code, lines, _ = command("predict", "--onnx", model.onnx, name, "--json", "p.json", "--csv", "p.csv")
    assert code == 0
    assert any(line.startswith("'photos/\\udcff.png'") for line in lines)
    assert json.loads(Path("p.json").read_text())["images"][0]["image"] == "photos/\\xff.png"
    assert "photos/\\xff.png," in Path("p.csv").read_text()


def test_classes_without_names_are_numbers(model, photos):
    shutil.copy(model.weights, "alone.ckpt")
    words = ("--arch", "cct_2_3x2_32", "--depth", 1, "--image_size", 32, "--num_classes", 3)
    code, lines, errors = command("predict", "--pretrained", "alone.ckpt", *words, photos / "a b.png")
    assert code == 0
    assert sorted(line.split()[-2] for line in lines[-3:]) == ["0", "1", "2"]
    assert errors == ["warning: no class names lie beside the weights: classes are called by their numbers"]


# ---------------------------------------------------------------------------------------------------------------------
# Images that cannot be read


def test_what_cannot_be_read_is_named_and_left_out(model, photos):
    (photos / "cut \x1b.png").write_bytes((photos / "a b.png").read_bytes()[:200])
    (photos / "empty.jpg").write_bytes(b"")
    words = ("--onnx", model.onnx, photos, "absent.png", "--csv", "p.csv", "--json", "p.json")
    code, _, errors = command("predict", *words)
    assert code == 0
    assert [line.split(": ")[:3] for line in errors] == [
        ["warning", "left out", "absent.png"],
        ["warning", "left out", "'photos/cut \\x1b.png'"],
        ["warning", "left out", "photos/empty.jpg"],
    ]
    assert errors[2].endswith("photos/empty.jpg: not an image")
    tree = json.loads(Path("p.json").read_text())
    assert len(tree["images"]) == 2
    assert [one["image"] for one in tree["faults"]] == ["absent.png", "photos/cut \x1b.png", "photos/empty.jpg"]
    with open("p.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [bool(row["fault"]) for row in rows] == [False, False, True, True, True]
    code, _, errors = command("predict", *words, "--strict")
    assert (code, len(errors)) == (3, 4)
    assert errors[3] == "error: images: 3 cannot be read, named above"


def test_nothing_to_read_is_exit_3(model):
    Path("a.png").write_bytes(b"text")
    assert command("predict", "--onnx", model.onnx, "a.png")[::2] == (3, ["error: a.png: not an image"])
    Path("empty").mkdir()
    code, lines, errors = command("predict", "--onnx", model.onnx, "empty", "b.png")
    assert (code, lines) == (3, [])
    assert errors == [
        "warning: left out: empty: holds no images",
        "warning: left out: b.png: no such image, folder or pattern",
        "error: images: 2 cannot be read, named above",
    ]


def test_numbers_that_are_none_are_exit_5(model, photos):
    config = resolved(load_config("eval", model.arguments))
    broken = values(build_configured_model(config.model))
    broken["classifier.fc.bias"][:] = 3e38
    broken["classifier.fc.weight"][:] = 3e38
    write_ckpt(Path("broken.ckpt"), broken)
    words = ("--arch", "cct_2_3x2_32", "--depth", 1, "--num_classes", 3, "--pretrained", "broken.ckpt")
    code, _, errors = command("predict", *words, photos)
    assert code == 5
    assert errors[-1] == "error: broken.ckpt: the network gives values that are not finite"


# ---------------------------------------------------------------------------------------------------------------------
# Pictures of the attention


def test_equal_names_in_two_folders_are_kept_apart(model, photos):
    for folder in ("one", "two"):
        Path(folder).mkdir()
        shutil.copy(photos / "a b.png", f"{folder}/1.png")
        shutil.copy(photos / "a b.png", f"{folder}/1.bmp")
    Path("two/1.png").write_bytes(b"")
    words = ("--pretrained", model.weights, "one", "two", "--attention", "maps", "--batch_size", 3)
    plain = predictions("--pretrained", model.weights, "one", "two")
    assert_same(predictions(*words), by_image(plain))
    found = sorted(str(path.relative_to("maps")) for path in Path("maps").rglob("*.png"))
    names = ("one/1.bmp", "one/1.png", "two/1.bmp")
    assert found == [f"{name}.cct_{kind}.png" for name in names for kind in ("rollout", "sequence_pool")]
    pictures = {path.name: np.asarray(Image.open(path)) for path in Path("maps/one").iterdir()}
    assert {picture.shape for picture in pictures.values()} == {(448, 448, 3)}
    assert np.abs(pictures["1.png.cct_rollout.png"].astype(int) - pictures["1.png.cct_sequence_pool.png"]).max() > 5


def test_long_names_fit_into_the_file_system(tmp_path):
    names = ["ü" * 120 + ".png", "ü" * 120 + ".jpg", "x" * 170 + ".png"]
    paths = [picture_path(tmp_path, name, "deit_rollout_distillation") for name in names]
    assert len(set(paths)) == 3
    for path in paths:
        (tmp_path / f".partial-0123456789ab-{path.name}").touch()
    assert paths[2].name == "x" * 170 + ".png.deit_rollout_distillation.png"
