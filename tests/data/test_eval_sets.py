"""Sets that test an ImageNet network elsewhere, in small folders of their layouts: labels, answers, what is refused."""

import json
from pathlib import Path

import pytest

from src.data import eval_sets
from src.data.eval_sets import EvalSet, open_eval_set
from src.errors import ConfigError, DataError
from src.schema import Config
from tests.data.images import write_folders

# As a network may have them: not sorted.
CLASSES = ("n03", "n01", "n02", "n04")
CORRUPTIONS = ("fog", "snow")


def opened(name: str, root: Path = Path("set"), known: tuple[str, ...] | None = CLASSES, **keys: object) -> EvalSet:
    values = {"eval_set": name, **keys}
    config = {"data": {"data_url": str(root)}, "model": {"num_classes": len(CLASSES)}, "evaluation": values}
    return open_eval_set(Config.model_validate(config), known)


def named(found: EvalSet) -> list[tuple[str, str]]:
    """Path and class name of every image."""
    images = found.images
    return [(path, images.class_names[label]) for path, label in zip(images.paths, images.labels, strict=True)]


def test_val_is_the_split_and_its_classes_are_compared():
    write_folders(Path("set/val"), dict.fromkeys(sorted(CLASSES), 1))
    found = opened("val", known=None)
    assert (len(found.images), found.columns, found.accepted) == (4, None, None)
    with pytest.raises(DataError, match=r"other classes than the weights were trained for. Received: their order"):
        opened("val")
    with pytest.raises(DataError, match=r"were trained for. Received: n03, n05"):
        opened("val", known=("n01", "n02", "n04", "n05"))


def test_numbers_are_places_among_the_sorted_names(capsys):
    write_folders(Path("set"), dict.fromkeys("0123", 1))
    found = opened("imagenet_v2")
    assert found.images.class_names == CLASSES
    assert named(found) == [("0/000.png", "n01"), ("1/000.png", "n02"), ("2/000.png", "n03"), ("3/000.png", "n04")]
    warned = "warning: imagenet_v2 has 1000 classes, here are 4: not the number of imagenet_v2\n"
    assert capsys.readouterr().err == warned


def test_ten_comes_after_nine(monkeypatch, capsys):
    monkeypatch.setitem(eval_sets._NUM_CLASSES, "imagenet_v2", 12)
    names = tuple(f"n{index:02d}" for index in range(12))
    write_folders(Path("set"), {str(index): 1 for index in range(12)})
    config = Config.model_validate(
        {"data": {"data_url": "set"}, "model": {"num_classes": 12}, "evaluation": {"eval_set": "imagenet_v2"}}
    )
    pairs = dict(named(open_eval_set(config, names)))
    assert pairs == {f"{index}/000.png": f"n{index:02d}" for index in range(12)}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r", "imagenet_sketch"])
def test_answers_are_restricted_to_the_classes_of_the_set(name):
    write_folders(Path("set"), {"n04": 1, "n03": 2})
    found = opened(name)
    assert found.images.class_names == ("n03", "n04")
    assert found.columns == (0, 3)
    assert list(found.images.labels) == [0, 0, 1]


def test_corruptions(monkeypatch):
    for corruption in CORRUPTIONS:
        for severity in "12345":
            write_folders(Path("set", corruption, severity), {"n02": 1, "n03": 1})
    found = opened("imagenet_c")
    assert found.corruptions == {"fog": range(10), "snow": range(10, 20)}
    assert named(found)[:3] == [
        ("fog/1/n02/000.png", "n02"),
        ("fog/1/n03/000.png", "n03"),
        ("fog/2/n02/000.png", "n02"),
    ]
    assert found.columns is None
    assert found.images.read(19).size == (12, 10)
    Path("set/snow/5").rename("set/snow/6")
    with pytest.raises(DataError, match=r"set/snow: must hold the severities 1 to 5. Received: 1, 2, 3, 4, 6"):
        opened("imagenet_c")


def write_real(lists: object, count: int = 6) -> Path:
    """Images 1 to ``count`` of val in turns in the sorted classes, and their label lists."""
    for number in range(1, count + 1):
        folder = Path("set/val", sorted(CLASSES)[number % 4])
        write_folders(Path("made"), {str(number): 1})
        folder.mkdir(parents=True, exist_ok=True)
        Path("made", str(number), "000.png").rename(folder / f"ILSVRC2012_val_{number:08d}.png")
    Path("real.json").write_text(json.dumps(lists))
    return Path("real.json")


def test_reassessed_labels():
    names = tuple(sorted(CLASSES))
    path = write_real([[0], [], [1, 3], [2], [], [0]])
    found = opened("imagenet_real", known=names, real_labels=str(path))
    numbers = [int(name[-12:-4]) for name in found.images.paths]
    assert sorted(numbers) == [1, 3, 4, 6]
    assert {number: set(right) for number, right in zip(numbers, found.accepted, strict=True)} == {
        1: {0},
        3: {1, 3},
        4: {2},
        6: {0},
    }
    assert found.images.read(0).size == (12, 10)


@pytest.mark.parametrize("lists", [{}, [0, 1], [[4]], [[-1]], [["n01"]], [[True]], [[0.5]]])
def test_wrong_label_lists(lists):
    path = write_real(lists)
    with pytest.raises(DataError, match=r"real.json: must be a list of lists of whole numbers below 4"):
        opened("imagenet_real", known=tuple(sorted(CLASSES)), real_labels=str(path))


def test_label_lists_that_do_not_fit():
    names = tuple(sorted(CLASSES))
    path = write_real([[0], [1]])
    with pytest.raises(DataError, match=r"must be named ILSVRC2012_val_00000001 to 00000002. Received: .*val_0000000"):
        opened("imagenet_real", known=names, real_labels=str(path))
    path.write_text("{")
    with pytest.raises(DataError, match=r"real.json: must be JSON"):
        opened("imagenet_real", known=names, real_labels=str(path))
    path.write_text(json.dumps([[]] * 6))
    with pytest.raises(DataError, match=r"leaves no image"):
        opened("imagenet_real", known=names, real_labels=str(path))
    with pytest.raises(DataError, match=r"absent.json: cannot be read: No such file"):
        opened("imagenet_real", known=names, real_labels="absent.json")
    with pytest.raises(ConfigError, match=r"real_labels: must name ImageNet-ReaL's real.json"):
        opened("imagenet_real", known=names)


def test_nobody_knows_the_classes():
    write_folders(Path("set"), {"n04": 1, "n03": 1})
    rule = "class_order: must name ImageNet's train folder or a file of one name a line: the weights do not say"
    with pytest.raises(ConfigError, match=rule):
        opened("imagenet_a", known=None)


def test_classes_from_a_folder_or_a_file():
    write_folders(Path("set"), {"n04": 1, "n03": 1})
    for name in CLASSES:
        Path("train", name).mkdir(parents=True)
    assert opened("imagenet_a", known=None, class_order="train").columns == (2, 3)
    Path("order.txt").write_text("\n".join([*CLASSES, ""]))
    assert opened("imagenet_a", known=None, class_order="order.txt").columns == (0, 3)
    assert opened("imagenet_a", class_order="order.txt").columns == (0, 3)
    with pytest.raises(
        DataError, match=r"train: must hold the classes that the weights were trained for, in their order"
    ):
        opened("imagenet_a", class_order="train")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n01\nn02\n", "order.txt: must hold the 4 classes of the network. Received: 2"),
        ("n01\nn02\nn01\nn03\n", "order.txt: names a class twice. Received: n01"),
        ("a\nb\nc\nd\n", "set: holds classes that the network does not have. Received: n03, n04. Known: a, b, c, d"),
    ],
)
def test_wrong_class_orders(text, expected):
    write_folders(Path("set"), {"n04": 1, "n03": 1})
    Path("order.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        opened("imagenet_a", known=None, class_order="order.txt")
    assert str(caught.value) == expected


def test_wrong_folders():
    write_folders(Path("set"), {"0": 1, "1": 1, "3": 1, "4": 1})
    with pytest.raises(DataError, match=r"set: must hold the folders 0 to 3. Received: differing 2, 4"):
        opened("imagenet_v2")
    with pytest.raises(DataError, match=r"data_url: no such folder. Received: absent"):
        opened("imagenet_r", Path("absent"))
    Path("empty").mkdir()
    with pytest.raises(DataError, match=r"must hold a folder for each corruption"):
        opened("imagenet_c", Path("empty"))


def test_images_turn_as_their_cameras_say_on_request():
    write_folders(Path("set"), {"n04": 1, "n03": 1})
    values = {"data_url": "set", "exif_orientation": True}
    config = {"data": values, "model": {"num_classes": 4}, "evaluation": {"eval_set": "imagenet_a"}}
    assert open_eval_set(Config.model_validate(config), CLASSES).images.exif_orientation is True
