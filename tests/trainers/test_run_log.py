"""The log of a run: its files after kills, resumes and on full disks."""

import csv
import json
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from src.trainers.log_files import COLUMNS, read_records
from src.trainers.run_log import TIMES, RunLog
from tests.trainers.logged import FOLDER, STEPS_PER_EPOCH, child, configured, log_steps, open_log, update


def records(folder: Path = FOLDER) -> list[dict]:
    """Every line of the file, all of which must be JSON, without the times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return [
        {key: value for key, value in json.loads(line, parse_constant=refuse).items() if key not in TIMES}
        for line in lines
    ]


def rows(folder: Path = FOLDER) -> list[dict]:
    with (folder / "metrics.csv").open(newline="") as stream:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(stream)]


def events(path: Path) -> list[Event]:
    """The whole records of an event file, checks included; TensorBoard too leaves out a cut-off one."""
    content, found = path.read_bytes(), []
    while len(content) >= 12:
        (length,) = struct.unpack("<Q", content[:8])
        if len(content) < 16 + length:
            break
        data = content[12 : 12 + length]
        checks = struct.unpack("<I", content[8:12]) + struct.unpack("<I", content[12 + length : 16 + length])
        assert checks == (masked_crc32c(content[:8]), masked_crc32c(data))
        found.append(Event.FromString(data))
        content = content[16 + length :]
    return found


def scalars(folder: Path = FOLDER) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every tag as TensorBoard shows them: a start takes back what was there from its step on."""
    shown: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                shown = {tag: [one for one in points if one[0] < event.step] for tag, points in shown.items()}
            for value in event.summary.value:
                shown.setdefault(value.tag, []).append((event.step, value.simple_value))
    return shown


# ---------------------------------------------------------------------------------------------------------------------
# Contents


def test_records_of_steps_and_epochs():
    with open_log() as log:
        log_steps(log, 1, 8)
        returned = log.epochs
    steps = [record for record in records() if record["kind"] == "step"]
    assert [(record["epoch"], record["step"], record["steps"]) for record in steps] == [(1, 3, 3), (1, 6, 3), (1, 7, 1)]
    assert steps[1]["loss"] == pytest.approx((3 / 4 + 3 / 5 + 3 / 6) / 3)
    assert (steps[1]["lr"], steps[1]["images"], steps[1]["loss_scale"]) == (0.006, 12, None)
    (epoch,) = [record for record in records() if record["kind"] == "epoch"]
    assert epoch == {key: value for key, value in returned[0].items() if key not in TIMES}
    assert epoch["loss"] == pytest.approx(sum(3 / step for step in range(1, 8)) / 7)
    assert (epoch["step"], epoch["last_loss"], epoch["top1"]) == (7, 3 / 7, 1 - 1 / 7)
    assert (returned[0]["seconds"], returned[0]["images_per_second"]) == (3.5, 8.0)


def test_table_of_epochs():
    with open_log() as log:
        log_steps(log, 1, 14)
    assert (FOLDER / "metrics.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert [(row["epoch"], row["step"], row["val_images"]) for row in rows()] == [("1", "7", "10"), ("2", "14", "10")]
    assert {row["loss_scale"] for row in rows()} == {row["ema_top1"] for row in rows()} == {""}


def test_tensorboard_holds_the_same_numbers():
    with open_log() as log:
        log_steps(log, 1, 14)
    shown = scalars()
    for tag, key in (("step/loss", "loss"), ("step/lr", "lr"), ("epoch/top1", "top1"), ("epoch/val_loss", "val_loss")):
        kind = tag.split("/")[0]
        wanted = [(record["step"], record[key]) for record in records() if record["kind"] == kind]
        assert [step for step, _ in shown[tag]] == [step for step, _ in wanted]
        assert [value for _, value in shown[tag]] == pytest.approx([value for _, value in wanted]), tag
    assert "step/loss_scale" not in shown
    (path,) = (FOLDER / "tensorboard").iterdir()
    assert events(path)[0].file_version == "brain.Event:2"


def test_skipped_updates_count_as_overflows_and_leave_the_means_alone(capsys):
    with open_log() as log:
        log.step(update(1, loss_scale=2.0**16, loss=float("inf"), grad_norm=float("nan"), skipped=True))
        log.step(update(2, loss_scale=2.0**15, loss=1.0))
        log.step(update(3, loss_scale=2.0**15, loss=2.0))
        for step in range(4, 8):
            log.step(update(step, loss=float("nan"), grad_norm=float("inf"), loss_scale=1.0, skipped=True))
        log.evaluation({"val_loss": float("nan")})
        log.epoch()
    first, second, last, epoch = records()
    assert (first["loss"], first["overflows"], first["loss_scale"], first["images"]) == (1.5, 1, 2.0**15, 12)
    assert (second["loss"], second["grad_norm"], second["overflows"]) == (None, None, 3)
    assert (epoch["loss"], epoch["last_loss"], epoch["val_loss"], epoch["overflows"]) == (1.5, None, None, 5)
    assert last["steps"] == 1
    assert capsys.readouterr().out.count("=============Over Flow, skipping=============\n") == 5


def test_other_ranks_keep_count_and_are_silent(capsys):
    with open_log() as log, RunLog(Path("other"), configured(), STEPS_PER_EPOCH, is_first_rank=False) as other:
        log_steps(log, 1, 7)
        capsys.readouterr()
        log_steps(other, 1, 7, skipped=True)
        other.evaluation({"top1": 0.5})
        assert other.checkpoint_state()["last"]["step"] == 7
        assert len(other.epochs) == 1
    assert capsys.readouterr() == ("", "")
    assert not Path("other").exists()
    with open_log(start_step=7, is_first_rank=False) as other:
        assert [record["epoch"] for record in other.epochs] == [1]


def test_nothing_is_written_by_a_start_that_does_nothing():
    with open_log() as log:
        log_steps(log, 1, 21)
        state = log.checkpoint_state()
    before = {path: path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    with open_log(start_step=21, state=state):
        pass
    assert {path: path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()} == before


# ---------------------------------------------------------------------------------------------------------------------
# Cut off and gone on with


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was not cut off."""
    folder = tmp_path_factory.mktemp("whole") / "ckpt_0"
    with RunLog(folder, configured(), STEPS_PER_EPOCH) as log:
        log_steps(log, 1, 21)
    return folder


@pytest.mark.parametrize("saved", [0, 1, 3, 5, 6, 7, 9, 14, 20])
def test_resumed_run_has_the_records_of_a_whole_one(saved, whole):
    with open_log() as log:
        log_steps(log, 1, saved)
        # As a checkpoint's manifest keeps it.
        state = json.loads(json.dumps(log.checkpoint_state()))
        log_steps(log, saved + 1, 18, loss=99.0)
    for _ in range(2):
        with open_log(start_step=saved, state=state) as log:
            log_steps(log, saved + 1, 21)
    assert records() == records(whole)
    assert rows() == rows(whole)
    shown, wanted = scalars(), scalars(whole)
    assert shown.keys() == wanted.keys()
    for tag in shown.keys() - {f"{kind}/{key}" for kind in ("step", "epoch") for key in TIMES}:
        assert shown[tag] == wanted[tag], tag


def test_an_epoch_that_was_saved_before_its_evaluation_is_recorded_once(whole):
    with open_log() as log:
        log_steps(log, 1, 13)
        log.step(update(14))
        state = log.checkpoint_state()
        log.epoch()
    with open_log(start_step=14, state=state) as log:
        assert [record["epoch"] for record in log.epochs] == [1]
        log.evaluation({"val_loss": 1.0, "top1": 1 - 1 / 14, "top5": 1.0, "val_images": 10})
        log.epoch()
        log_steps(log, 15, 21)
    assert records() == records(whole)
    assert rows() == rows(whole)


def test_best_accuracy_is_remembered_over_a_resume(capsys):
    with open_log() as log:
        for step in range(1, 8):
            log.step(update(step))
        log.evaluation({"top1": 0.75})
        log.epoch()
        state = log.checkpoint_state()
    with open_log(start_step=7, state=state) as log:
        for step in range(8, 15):
            log.step(update(step))
        log.evaluation({"top1": 0.5})
    assert capsys.readouterr().out.splitlines()[-1] == "epoch: 2 acc: 0.5, best acc is 0.75"


@pytest.mark.parametrize("rest", [b'{"kind": "step", "epoch": 3, "st', b"\x00\xff\n", b'{"kind": "step"}\n', b"7\n[]"])
def test_what_is_no_record_is_dropped(rest, whole):
    FOLDER.mkdir()
    for name in ("metrics.jsonl", "metrics.csv"):
        (FOLDER / name).write_bytes((whole / name).read_bytes() + rest)
    with open_log(start_step=21) as log:
        assert len(log.epochs) == 3
    assert records() == records(whole)
    assert rows() == rows(whole)


ENDLESS = """
import sys
from pathlib import Path
from tests.trainers.logged import configured, update
from src.trainers.run_log import RunLog
with RunLog(Path(sys.argv[1]), configured(log_every=1, epochs=10**6), 7) as log:
    for step in range(1, 10**9):
        log.step(update(step))
        if step % 7 == 0:
            log.epoch()
"""


def test_files_are_whole_after_kills():
    for turn in range(3):
        folder = Path(f"run {turn}")
        with child(ENDLESS, folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            path = folder / "metrics.jsonl"
            wanted = time.monotonic() + 60
            while not (path.exists() and path.stat().st_size > 30_000):
                assert process.poll() is None
                assert time.monotonic() < wanted
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        kept = read_records(path)
        steps = [record["step"] for record in kept if record["kind"] == "step"]
        assert steps == list(range(1, len(steps) + 1))
        assert len(path.read_bytes().splitlines()) - len(kept) in (0, 1)
        (event_file,) = (folder / "tensorboard").iterdir()
        assert len(events(event_file)) == pytest.approx(1 + len(kept), abs=1)
        last = kept[-1]["step"]
        with RunLog(folder, configured(), 7, start_step=last - 1):
            assert records(folder)[-1]["step"] == last - 1
            assert len(rows(folder)) == (last - 1) // 7


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.trainers.logged import configured, update
from src.trainers.run_log import RunLog
# A file that may not grow further takes a part of the next line and then refuses, as a full disk does.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = RunLog(Path(sys.argv[1]), configured(log_every=1), 7)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    for step in range(1, 8):
        log.step(update(step))
except OSError as error:
    print(error.filename)
"""


def test_a_full_disk_ends_the_run_and_leaves_whole_lines():
    with child(FULL, FOLDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.communicate(timeout=60)[0] == f"{FOLDER / 'metrics.jsonl'}\n"
    assert (FOLDER / "metrics.jsonl").read_bytes().endswith(b"}\n")
    assert [record["step"] for record in records()] == [1, 2, 3, 4]


def test_a_step_costs_little():
    with open_log(config=configured(log_every=50), is_first_rank=True) as log:
        log.steps_per_epoch = 10**9
        started = time.process_time()
        for step in range(1, 5001):
            log.step(update(step))
        seconds = time.process_time() - started
    # Ten times what was measured: a machine may be slow, a write per step is still noticed.
    assert seconds / 5000 < 200e-6
