"""preprocess.py called again: what is done stays, what has changed or was cut off is done anew."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.transforms import read_image
from src.deploy.input_record import InputRecord, stamp_of
from src.deploy.runner_inputs import PreprocessConfig, preprocess
from src.errors import ConfigError, DataError
from src.files import locked
from tests import small_run
from tests.cpp_runner import ROOT
from tests.deploy.descriptions import TRANSFORM, description

IMAGES = [f"{name}/{index}" for index in range(small_run.NUM_VAL) for name in [small_run.CLASS_NAMES[index % 3]]]


@pytest.fixture
def data(tmp_path):
    return small_run.write_images(tmp_path / "data") / "val"


def run(data: Path, **changes: object) -> dict[str, int]:
    """Preprocess; when each file was written."""
    transform = description().transform.model_copy(update=changes)
    Path("x.json").write_text(description(transform=transform).model_dump_json())
    output = preprocess(PreprocessConfig(data_path=str(data), model_info="x.json", output_path="out"))
    files = {path.relative_to(output / "img_data"): path for path in sorted(output.rglob("img_data/**/*.bin"))}
    return {str(name.with_suffix("")): path.stat().st_mtime_ns for name, path in files.items()}


def redone(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return [name for name in after if before.get(name) != after[name]]


def content(name: str) -> np.ndarray:
    return np.fromfile(f"out/img_data/{name}.bin", np.float32).reshape(3, 16, 16)


def test_nothing_is_done_twice(data, capsys):
    first = run(data)
    assert sorted(first) == sorted(IMAGES)
    labels = Path("out/imagenet_label.json").read_bytes()
    assert run(data) == first
    assert Path("out/imagenet_label.json").read_bytes() == labels
    last = "[INFO] Completed! Total 7 data.\n"
    assert capsys.readouterr().out == last + "=> 7 of 7 files were there\n" + last


def replace_pixels(path: Path) -> None:
    Image.new("RGB", (20, 18), "red").save(path)


def same_size_and_other_time(path: Path) -> None:
    os.utime(path, (1, 1))


def same_time_and_other_size(path: Path) -> None:
    time_ns = path.stat().st_mtime_ns
    replace_pixels(path)
    os.utime(path, ns=(time_ns, time_ns))


@pytest.mark.parametrize("change", [replace_pixels, same_size_and_other_time, same_time_and_other_size])
def test_a_changed_image(change, data):
    before = run(data)
    change(data / "square" / "1.png")
    assert redone(before, run(data)) == ["square/1"]
    np.testing.assert_array_equal(content("square/1"), TRANSFORM(read_image(data / "square" / "1.png")))


@pytest.mark.parametrize(
    "changes", [{"mean": (0.5, 0.5, 0.5)}, {"crop_pct": 0.5, "resize_size": 32}, {"interpolation": "bicubic"}]
)
def test_a_changed_transform(changes, data):
    first = run(data)
    second = run(data, **changes)
    assert sorted(redone(first, second)) == sorted(IMAGES)
    # And back: the files are the second transform's.
    assert sorted(redone(second, run(data))) == sorted(IMAGES)
    np.testing.assert_array_equal(content("circle/0"), TRANSFORM(read_image(data / "circle" / "0.png")))


def test_half_files_and_lost_ones(data):
    before = run(data)
    half = Path("out/img_data/circle/0.bin")
    half.write_bytes(half.read_bytes()[:-4])
    Path("out/img_data/tri angle/2.bin").unlink()
    assert sorted(redone(before, run(data))) == ["circle/0", "tri angle/2"]


@pytest.mark.parametrize("damage", [b"", b"\xff\n", b"{}\n", b'{"transform": 1}\n["circle/0", 1, 2]\n'])
def test_a_damaged_record_counts_for_nothing(damage, data):
    before = run(data)
    Path("out/preprocess.jsonl").write_bytes(damage)
    assert sorted(redone(before, run(data))) == sorted(IMAGES)


def test_damaged_lines_of_a_record(data):
    before = run(data)
    head, first, second, third, *rest = Path("out/preprocess.jsonl").read_text().splitlines()
    lines = [head, first[:-3], f"5{second}", json.dumps([*json.loads(third)[:2], "then"]), "1", '{"a": 1}', *rest]
    Path("out/preprocess.jsonl").write_text("\n".join([*lines, '["cut']))
    lost = [json.loads(line)[0] for line in (first, second, third)]
    assert sorted(redone(before, run(data))) == sorted(lost)


def test_a_killed_call_goes_on(data, tmp_path):
    for index in range(600):
        path = data / "square" / f"large {index}.png"
        Image.new("RGB", (400, 300), (index % 256, 9, 9)).save(path, compress_level=0)
    Path("x.json").write_text(description().model_dump_json())
    words = [sys.executable, ROOT / "preprocess.py", "--data_path", data, "--model_info", "x.json"]
    process = subprocess.Popen([*words, "--output_path", "out"], stdout=subprocess.DEVNULL)
    record, deadline = Path("out/preprocess.jsonl"), time.monotonic() + 60
    while not (record.exists() and record.read_bytes().count(b"\n") > 50) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = [json.loads(line)[0] for line in record.read_text().splitlines()[1:]]
    assert 50 <= len(done) < 600
    assert not Path("out/imagenet_label.json").exists()
    before = {name: Path(f"out/img_data/{name}.bin").stat().st_mtime_ns for name in done}
    # What a kill at another moment leaves, and an image that goes before the next call.
    Path("out/img_data/square/.partial-0123456789ab-7.bin").write_bytes(b"half")
    (data / f"{done[-1]}.png").unlink()
    after = run(data)
    assert [name for name in done[:-1] if before[name] != after[name]] == []
    assert len(after) == 600 + small_run.NUM_VAL - 1
    assert done[-1] not in after
    for name in after:
        np.testing.assert_array_equal(content(name), TRANSFORM(read_image(data / f"{name}.png")))


def test_an_image_that_cannot_be_read_any_more(data):
    run(data)
    (data / "circle" / "0.png").write_bytes(b"no image")
    assert sorted(run(data)) == sorted(set(IMAGES) - {"circle/0"})
    assert "circle/0.png" not in json.loads(Path("out/imagenet_label.json").read_text())


def test_a_folder_in_use(data):
    with locked(Path("out")), pytest.raises(ConfigError, match="choose another --output_path"):
        run(data)


def test_names_that_are_no_text(data):
    name = os.fsdecode(b"\xe4 \xff.png")
    (data / "circle" / "0.png").rename(data / "circle" / name)
    assert f"circle/{name[:-4]}" in run(data)
    assert run(data)
    assert f"circle/{name}" in json.loads(Path("out/imagenet_label.json").read_text())


def test_a_record_of_threads_is_whole(tmp_path):
    with InputRecord(tmp_path / "r.jsonl", TRANSFORM) as record, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: record.add(f"n{index}", (index, 2 * index)), range(500)))
        assert record.added == 500
    with InputRecord(tmp_path / "r.jsonl", TRANSFORM) as record:
        assert all(record.is_done(f"n{index}", (index, 2 * index)) for index in range(500))
        assert not record.is_done("n1", (1, 3))


def test_stamp_of_nothing(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        stamp_of(tmp_path / "absent")
