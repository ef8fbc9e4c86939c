"""Training in processes of its own: several ranks are one run, and what cuts a run off does not change its numbers."""

import random
import signal
import subprocess
import sys
import time

import pytest

from src.weights.manifest import read_manifest, verified_manifest
from tests import small_run
from tests.command import python
from tests.long_run import (
    ALL_ON,
    SCALED,
    Job,
    assert_close,
    assert_same_bits,
    assert_same_run,
    last_checkpoint,
    records,
    send_together,
)
from tests.oracles import PROJECT

ACCUMULATED = dict(batch_size=2, accumulation_step=2, save_steps=2, num_parallel_workers=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_run.write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole_runs(data, tmp_path_factory):
    """Run directories of runs that nothing has cut off, by ranks; each runs when it is first asked for."""
    done = {}

    def of(ranks, **flags):
        key = (ranks, *sorted(flags.items()))
        if key not in done:
            done[key] = Job(data, tmp_path_factory.mktemp("whole"), ranks, **ALL_ON | SCALED | flags).done()
        return done[key]

    return of


# ---------------------------------------------------------------------------------------------------------------------
# Several ranks


def test_two_ranks_train_as_one_with_twice_the_batch(data, tmp_path):
    flags = ALL_ON | dict(epochs=7, cutmix=1.0)
    one, two = (Job(data, tmp_path / str(ranks), ranks, **flags).done() for ranks in (1, 2))
    assert_close(two, one, tolerance=1e-5)
    epochs = [record for record in records(two) if record["kind"] == "epoch"]
    assert epochs[-1]["step"] == 21
    # An odd number, which two ranks with batches of two have to fill up.
    assert [record["val_images"] for record in epochs] == [small_run.NUM_VAL] * 7


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(before, after, data, tmp_path):
    flags = ALL_ON | dict(epochs=7)
    whole = Job(data, tmp_path / "whole", before, **flags).done()
    stopped = Job(data, tmp_path, before, stop_after=10, **flags).ended()
    assert stopped.returncode == 75, stopped.stderr
    assert_close(Job(data, tmp_path, after, **flags).done(), whole, tolerance=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Killed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("ranks", "flags"), [(1, ACCUMULATED), (2, {})])
def test_a_run_that_is_killed_five_times_ends_with_the_same_bits(ranks, flags, whole_runs, data, tmp_path):
    whole = whole_runs(ranks, **flags)
    job, moments = Job(data, tmp_path, ranks, **ALL_ON | SCALED | flags), random.Random(ranks)
    for kill in range(5):
        process = job.start()
        if kill == 3:
            # While libraries are imported, or ranks come together, or kernels are compiled.
            time.sleep(moments.uniform(0.5, 5))
        else:
            job.wait_for(job.saved_step() + moments.randint(1, 9), process)
            time.sleep(moments.uniform(0, 0.1))
        victims = [process] if ranks == 1 or kill % 2 else [*job.rank_processes(process).values()]
        assert process.poll() is None
        moments.choice(victims).kill()
        process.communicate(timeout=60)
        assert process.returncode == (137 if victims != [process] else -9)
    assert_same_run(job.done(), whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_main_job_killed_twice_ends_with_the_same_weights(tmp_path):
    words = [PROJECT / "train.py", "--config", PROJECT / "configs" / "cct_2_3x2_digits.yaml", "--epochs", 3]
    words += ["--data_url", tmp_path / "digits", "--output_dir"]
    whole = python(*words, tmp_path / "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    moments = random.Random(0)
    run = tmp_path / "killed" / "ckpt_0"
    for epoch in (1, 2):
        process = subprocess.Popen([sys.executable, *map(str, words), str(tmp_path / "killed")], cwd=tmp_path)
        while not list(run.glob(f"cct*-{epoch}_*.json")):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 3))
        assert process.poll() is None
        process.kill()
        process.wait()
    again = python(*words, tmp_path / "killed", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "=> resuming after epoch" in again.stdout
    ends = [read_manifest(last_checkpoint(folder)) for folder in (tmp_path / "whole" / "ckpt_0", run)]
    assert [end.epoch for end in ends] == [3, 3]
    assert ends[0].sha256 == ends[1].sha256


# ---------------------------------------------------------------------------------------------------------------------
# Asked to stop


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(ranks, number, whole_runs, data, tmp_path):
    # Nothing but the signal saves inside an epoch.
    job = Job(data, tmp_path, ranks, **ALL_ON | SCALED | dict(save_steps=0))
    process = job.start()
    job.wait_for(6, process)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors.splitlines()[-1] == "error: interrupted, run the same command to go on"
    said = said if ranks == 1 else (tmp_path / "train_parallel0" / "log.txt").read_text()
    (line,) = [line for line in said.splitlines() if line.startswith("=> stopped")]
    epoch, step = divmod(job.saved_step() - 1, small_run.STEPS_PER_EPOCH)
    assert line == f"=> stopped after epoch {epoch + 1} step {step + 1}; the state is saved"
    assert verified_manifest(last_checkpoint(job.run)).step < 60
    assert_same_bits(job.done(), whole_runs(ranks))


@pytest.mark.parametrize(
    ("ranks", "seconds"),
    [(1, 0.8), (1, 1.5), *(pytest.param(2, seconds, marks=pytest.mark.slow) for seconds in (0.7, 1.5, 3, 4, 5, 6, 8))],
)
def test_a_run_that_has_hardly_begun_is_stopped_too(ranks, seconds, data, tmp_path):
    """While it imports libraries, comes together, or compiles."""
    job = Job(data, tmp_path, ranks, **ALL_ON | dict(save_steps=0, epochs=2000))
    process = job.start()
    time.sleep(seconds)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert errors.splitlines()[-1] == "error: interrupted, run the same command to go on"
    assert not list(tmp_path.rglob(".partial*"))


@pytest.mark.slow
def test_a_second_signal_ends_a_job_at_once(whole_runs, data, tmp_path):
    job = Job(data, tmp_path, 2, **ALL_ON | SCALED)
    process = job.start()
    job.wait_for(7, process)
    send_together(process, signal.SIGTERM, signal.SIGINT)
    said, errors = process.communicate(timeout=5)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "error: job: killed by a second signal, the last checkpoint is kept"
    assert "=> stopped after" not in said
    assert verified_manifest(last_checkpoint(job.run)).step < 60
    assert_same_run(job.done(), whole_runs(2))
