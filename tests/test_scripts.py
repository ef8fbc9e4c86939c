"""The zoo's shell scripts, run for real on the CPU from a folder with a blank, and a run that is interrupted."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import small_run
from tests.command import bash, python
from tests.cpp_runner import ROOT
from tests.rank_tables import rank_table, write

CONFIG = """
arch: cct_2_3x2_32
num_classes: 3
depth: 1
set: folder
data_url: {data}
batch_size: 4
epochs: 1
num_parallel_workers: 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data, a configuration with relative paths, and a trained model."""
    root = tmp_path_factory.mktemp("my folder")
    small_run.write_images(root / "data")
    (root / "c.yaml").write_text(CONFIG.format(data="./data"))
    ran = bash("run_standalone_train_ascend.sh", 0, "c.yaml", cwd=root)
    assert ran.returncode == 0, ran.stderr
    assert "start training for device id 0" in ran.stdout
    return root


def test_training_leaves_the_zoos_files(folder):
    run = folder / "train_standalone"
    log = (run / "log.txt").read_text()
    for line in (
        "=> Reading YAML config from c.yaml",
        "==> Creating model 'cct_2_3x2_32'",
        "begin train",
        "train success",
    ):
        assert f"{line}\n" in log
    assert (run / "ckpt_0" / "cct_2_3x2_320-1_3.ckpt").is_file()
    environment = (run / "env.log").read_text()
    assert "DEVICE_ID=0\n" in environment
    assert "hush" not in environment


def test_evaluation_prints_the_zoos_line(folder):
    best = folder / "train_standalone" / "ckpt_0" / "best.ckpt"
    ran = bash("run_eval_ascend.sh", 0, "c.yaml", best, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    (line,) = small_run.epoch_records(best.parent)
    log = (folder / "evaluation_ascend" / "eval.log").read_text()
    assert f"'Top1-Acc': {line['top1']}, 'Top5-Acc': {line['top5']}}}\n" in log
    assert "\n=> begin eval\n" in log
    assert log.endswith("=> eval success\n")
    assert f"'Top1-Acc': {line['top1']}" in ran.stdout


def test_inference_counts_what_evaluation_counts(folder, runner):
    best = folder / "train_standalone" / "ckpt_0" / "best.ckpt"
    python(ROOT / "export.py", "--config", "c.yaml", "--pretrained", best, "--ir_version", 1, cwd=folder, check=True)
    ran = bash("run_infer_310.sh", "cct_2_3x2_32.mindir", "imagenet2012", "data/val", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    (line,) = small_run.epoch_records(best.parent)
    accuracy = f"Top1 acc:  {line['top1']}\nTop5 acc:  {line['top5']}\n"
    assert (folder / "acc.log").read_text().startswith(accuracy + "\nclass ")
    assert accuracy + "NN inference cost average time: " in ran.stdout
    assert {"per_class.csv", "confusion.csv"} <= {path.name for path in folder.iterdir()}
    assert "of infer_count 7" in (folder / "time_Result" / "test_perform_static.txt").read_text()
    assert ran.stdout.startswith(
        "mindir name: cct_2_3x2_32.mindir\ndataset name: imagenet2012\ndataset path: data/val\n"
    )
    assert (folder / "build.log").is_file()
    assert len(list((folder / "result_Files").rglob("*_0.bin"))) == small_run.NUM_VAL

    # A second run, of a model that is damaged, stops at its stage and leaves the earlier results alone.
    before = {path: path.read_bytes() for path in (folder / "result_Files").rglob("*.bin")}
    (folder / "bad.mindir").write_bytes(b"no model")
    ran = bash("run_infer_310.sh", "bad.mindir", "imagenet2012", "data/val", cwd=folder)
    assert ran.returncode == 4
    assert ran.stderr.endswith("\n execute inference failed\n")
    assert before == {path: path.read_bytes() for path in (folder / "result_Files").rglob("*.bin")}


@pytest.mark.parametrize(
    ("name", "words", "usage"),
    [
        ("run_standalone_train_ascend.sh", [0], "[DEVICE_ID] [CONFIG_PATH]"),
        ("run_eval_ascend.sh", [0, "c.yaml"], "[DEVICE_ID] [CONFIG_PATH] [CHECKPOINT_PATH]"),
        ("run_distribute_train_ascend.sh", ["t.json"], "[RANK_TABLE_FILE] [CONFIG_PATH]"),
        ("run_distribute_train_ascend.sh", ["t.json", 8, 8], "[RANK_TABLE_FILE] [CONFIG_PATH]"),
        ("run_standalone_train_gpu.sh", [], "[DATASET_NAME] [DEVICE_ID] [LR_INIT] [LOGS_CKPT_DIR]"),
        ("run_distribute_train_gpu.sh", ["cifar10", 8], "[DATASET_NAME] [DEVICE_NUM] [LR_INIT] [LOGS_CKPT_DIR]"),
        ("run_standalone_eval_gpu.sh", ["cifar10", 0], "[DATASET_NAME] [DEVICE_ID] [CKPT_PATH]"),
        ("run_standalone_eval_ascend.sh", [], "[CKPT_PATH]"),
        ("run_infer_310.sh", ["x.mindir", "imagenet2012"], "[MINDIR_PATH] [DATASET_NAME] [DATASET_PATH] [DEVICE_ID]"),
    ],
)
def test_usage(name, words, usage, tmp_path):
    ran = bash(name, *words, cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[0].endswith(f"{name} {usage}")
    assert not list(tmp_path.iterdir())


def test_distributed_training_from_a_rank_table(folder):
    write(folder / "two ranks.json", rank_table(["192.0.2.10"], 2))
    ran = bash("run_distribute_train_ascend.sh", "two ranks.json", "c.yaml", "--graph_kernel", "False", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert (
        "start training for rank 0, device 0 rank_id 0\nstart training for rank 1, device 1 rank_id 1\n" in ran.stdout
    )
    for rank in (0, 1):
        environment = (folder / f"train_parallel{rank}" / "env.log").read_text()
        assert f"RANK_ID={rank}\n" in environment
        assert "hush" not in environment
    log = (folder / "train_parallel0" / "log.txt").read_text()
    assert "=> Reading YAML config from c.yaml\n" in log
    assert log.endswith("train success\n")
    assert (folder / "train_parallel0" / "ckpt_0" / "metrics.jsonl").is_file()


def test_failure_of_all_ranks_is_one_reason(folder):
    write(folder / "two.json", rank_table(["192.0.2.10"], 2))
    # ViT's form.
    ran = bash("run_distribute_train_ascend.sh", "two.json", 2, 2, "c.yaml", "--epochs", 0, cwd=folder)
    assert ran.returncode == 2
    reason, rank = ran.stderr.splitlines()
    assert reason == "error: --epochs: must be greater than or equal to 1. Received: 0"
    assert rank.startswith("error: rank ")
    assert "ended with exit code 2, so the job ends; its log is train_parallel" in rank
    ran = bash("run_distribute_train_ascend.sh", "two.json", 8, 8, "c.yaml", cwd=folder)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: --device_num: must agree with the rank table. Received: 8. Known: 2 on server")


@pytest.mark.slow
def test_scripts_for_gpus(folder):
    logs = folder / "my logs"
    ran = bash("run_standalone_train_gpu.sh", "c.yaml", 0, 0.001, logs, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    log = (logs / "train.log").read_text()
    assert "base_lr=0.001" in log
    assert log.endswith("train success\n")
    best = logs / "ckpt_0" / "best.ckpt"
    ran = bash("run_standalone_eval_gpu.sh", "c.yaml", 0, best, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert "=> eval results" in ran.stdout
    assert (folder / "eval.log").read_text().endswith("=> eval success\n")

    # A log of that name stays.
    for name, kept in (("new", False), ("my logs", True)):
        ran = bash("run_distribute_train_gpu.sh", "c.yaml", 1, "fast", name, cwd=folder)
        assert ran.returncode == 2
        assert ran.stderr.startswith("error: --base_lr: must be a number. Received: fast\nerror: rank 0: ended with")
        assert (folder / name / "train.log").read_text() == (
            log if kept else (folder / name / "rank0" / "log.txt").read_text()
        )


def test_cifar_is_a_yaml_of_ours(tmp_path):
    ran = bash("run_standalone_eval_ascend.sh", "absent.ckpt", "--data_url", "absent", cwd=tmp_path)
    assert ran.returncode in (3, 4)
    assert f"=> Reading YAML config from {ROOT}/configs/vit_base_cifar10.yaml\n" in (tmp_path / "eval.log").read_text()


def test_failure_is_passed_on_with_its_reason(tmp_path):
    ran = bash("run_standalone_train_ascend.sh", 0, "absent.yaml", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr == "error: --config: no such file. Received: absent.yaml\n"


def test_no_ascend_here_is_one_line(folder):
    best = folder / "train_standalone" / "ckpt_0" / "best.ckpt"
    ran = bash("run_eval_ascend.sh", 0, "c.yaml", best, cwd=folder, target="Ascend")
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: device_target: cannot be opened")
    assert ran.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 75), (signal.SIGTERM, 75), (signal.SIGKILL, -9)])
def test_interrupted_training_goes_on(number, code, folder, tmp_path):
    words = [str(ROOT / "train.py"), "--config", "c.yaml", "--epochs", "20"]
    # Noise cannot be learnt.
    words += ["--output_dir", str(tmp_path), "--save_every", "1", "--divergence_guard_epochs", "0"]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("ckpt_0/*-2_3.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    lines = [line for line in process.stderr.read().splitlines() if line.startswith("error")]
    assert lines == (["error: interrupted, run the same command to go on"] if code == 75 else [])
    ran = python(*words, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert "=> resuming after epoch" in ran.stdout
    epochs = [line["epoch"] for line in small_run.epoch_records(tmp_path / "ckpt_0")]
    np.testing.assert_array_equal(epochs, np.arange(1, 21))
