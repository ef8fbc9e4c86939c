"""Training in processes of its own that cannot go on: one line says why, what was saved stays, the rest is gone."""

import ctypes
import hashlib
import resource
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from src.weights.manifest import verified_manifest
from tests import small_run
from tests.command import command
from tests.long_run import ALL_ON, SCALED, Job, assert_gone, assert_same_run, last_checkpoint
from tests.oracles import PROJECT

FLAGS = ALL_ON | SCALED
# Less than a checkpoint, which has 108 KB, and more than all the logs.
SMALL_DISK = 90_000
# What a rank of a careless user does: the second one has settings of its own.
OTHER_ON_RANK_1 = """
import os, sys
sys.path.insert(0, {project!r})
from src.startup import run
from train import main
if os.environ["RANK_ID"] == "1":
    sys.argv += {words!r}
run(main)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_run.write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The directory of a run that nothing has cut off."""
    return done_here(Job(data, tmp_path_factory.mktemp("whole"), **FLAGS))


def done_here(job: Job) -> Path:
    """Do a job of one rank in this process, which is faster; its run directory."""
    code, _, errors = command("train", *job.words[2:])
    assert code == 0, errors
    return job.run


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def errors_of(text: str) -> list[str]:
    """What was said besides the warning that a CPU computes in float32."""
    return [line for line in text.splitlines() if not line.startswith("warning: amp_level")]


# ---------------------------------------------------------------------------------------------------------------------
# The disk


def on_a_small_disk() -> None:
    """A file that grows beyond the limit gets an error, as on a full disk; Python ignores the signal."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_DISK, SMALL_DISK))


def as_a_user() -> None:
    """Root writes wherever it likes; without this capability (CAP_DAC_OVERRIDE) it does not. Others have none."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_keeps_what_was_saved(ranks, whole, data, tmp_path):
    # A run of another number of ranks goes on, too.
    job = Job(data, tmp_path, ranks, **FLAGS)
    shutil.copytree(whole, job.run)
    newest = last_checkpoint(job.run)
    newest.unlink()
    newest.with_suffix(".json").unlink()
    before = contents(job.run)
    full = job.ended(preexec_fn=on_a_small_disk)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    reason, *others = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert reason.endswith(": file too large")
    assert len(others) == ranks - 1
    checkpoints = {name: content for name, content in before.items() if "ckpt" in name or name.startswith("vit")}
    assert checkpoints.items() <= contents(job.run).items()
    assert verified_manifest(last_checkpoint(job.run)).step == job.saved_step() == 59
    assert not list(job.run.rglob(".partial*"))
    if ranks == 1:
        assert_same_run(done_here(job), whole)


@pytest.mark.slow
@pytest.mark.parametrize("is_new", [True, False])
def test_a_folder_that_cannot_be_written_is_one_line(is_new, whole, data, tmp_path):
    run = tmp_path / "run" / "ckpt_0"
    run.parent.mkdir()
    if not is_new:
        shutil.copytree(whole, run)
    before, closed = contents(tmp_path), run.parent if is_new else run
    closed.chmod(0o555)
    ran = Job(data, tmp_path, **FLAGS).ended(preexec_fn=as_a_user)
    closed.chmod(0o755)
    assert ran.returncode == 1
    (line,) = errors_of(ran.stderr)
    assert line.startswith(f"error: {run}")
    assert line.endswith(": permission denied")
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_folder_in_use_is_refused_and_its_run_unharmed(whole, data, tmp_path):
    job = Job(data, tmp_path, **FLAGS)
    process = job.start()
    job.wait_for(5, process)
    process.send_signal(signal.SIGSTOP)
    try:
        second = job.ended()
    finally:
        process.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert errors_of(second.stderr) == [
        f"error: {job.run}: another run is using this folder, choose another --output_dir"
    ]
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert_same_run(job.run, whole)


# ---------------------------------------------------------------------------------------------------------------------
# Damaged checkpoints


def cut(share: float) -> object:
    return lambda content: content[: int(share * len(content))]


def flip(share: float, bit: int) -> object:
    def damaged(content: bytes) -> bytes:
        place = min(int(share * len(content)), len(content) - 1)
        return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]

    return damaged


DAMAGES = {
    "empty": cut(0),
    "flipped": flip(0.37, 5),
    "cut": cut(0.5),
    "last byte missing": lambda content: content[:-1],
    "first bytes alone": cut(1e-4),
    "longer": lambda content: content + b"\0",
    "other": lambda content: bytes(len(content)),
    "first bit flipped": flip(0, 7),
    "last bit flipped": flip(1, 0),
    "early bit flipped": flip(0.001, 3),
}


@pytest.mark.parametrize(
    "damage", [name if name == "flipped" else pytest.param(name, marks=pytest.mark.slow) for name in DAMAGES]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(damage, whole, data, tmp_path):
    job = Job(data, tmp_path, **FLAGS)
    shutil.copytree(whole, job.run)
    newest = last_checkpoint(job.run)
    # Another name of the same file must not be damaged with it.
    content = newest.read_bytes()
    newest.unlink()
    newest.write_bytes(DAMAGES[damage](content))
    before = contents(job.run)
    words = job.words[2:]
    code, _, errors = command("train", *words, "--resume", newest)
    assert (code, len(errors_of("\n".join(errors)))) == (4, 1)
    assert errors[-1].startswith(f"error: {newest}: ")
    assert contents(job.run) == before

    code, said, errors = command("train", *words)
    assert code == 0, errors
    first, *rest = errors_of("\n".join(errors))
    assert first.startswith(f"warning: {newest}: is damaged: ")
    assert first.endswith("; trying the one before")
    assert rest == []
    assert any(line.startswith("=> resuming after epoch 19 and 2 of 3 steps") for line in said)
    assert_same_run(job.run, whole)


# ---------------------------------------------------------------------------------------------------------------------
# Ranks


def wait_for_plan(job: Job) -> None:
    """Until the first rank has said what it is going to do; it is compiling then."""
    log, deadline = job.folder / "train_parallel0" / "log.txt", time.monotonic() + 120
    while not log.exists() or "begin train" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "updates"),
    [(1, 0), *(pytest.param(number, 4, marks=pytest.mark.slow) for number in (0, 1))],
)
def test_a_killed_rank_ends_the_job_at_once_and_leaves_nothing(number, updates, data, tmp_path):
    job = Job(data, tmp_path, 2, **FLAGS | dict(num_parallel_workers=1, epochs=200))
    process = job.start()
    wait_for_plan(job)
    job.wait_for(updates, process)
    family = psutil.Process(process.pid).children(recursive=True)
    # Two ranks, the scheduler and its child.
    assert len(family) >= 4
    job.rank_processes(process)[number].kill()
    started = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - started < 5
    assert process.returncode == 137
    log = f"its log is train_parallel{number}/log.txt"
    assert errors.splitlines()[-1] == f"error: rank {number}: ended with exit code 137, so the job ends; {log}"
    assert_gone(family)
    if updates:
        assert verified_manifest(last_checkpoint(job.run)).step >= updates


def other_images(root: Path) -> Path:
    """As many images of each class, of which one has another name."""
    data = small_run.write_images(root)
    first = min((data / "train").rglob("*.png"))
    first.rename(first.with_name("00.png"))
    return data


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("settings", 2, ["--base_lr", "0.5"]),
        pytest.param("training images", 3, ["--data_url", "other"], marks=pytest.mark.slow),
    ],
)
def test_ranks_that_differ_are_refused(what, code, words, data, tmp_path):
    other_images(tmp_path / "other")
    script = tmp_path / "careless.py"
    script.write_text(OTHER_ON_RANK_1.format(project=str(PROJECT), words=words))
    ran = Job(data, tmp_path, 2, script, **FLAGS).ended()
    assert ran.returncode == code
    reason, rank = ran.stderr.splitlines()
    assert reason == f"error: {what}: must be equal on all ranks. Received: rank 1 unlike rank 0"
    assert f"ended with exit code {code}, so the job ends" in rank
    assert not (tmp_path / "run").exists()
