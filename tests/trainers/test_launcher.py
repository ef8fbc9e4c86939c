"""The launcher, with small scripts as ranks: how jobs end, who is told, and that nothing is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from src.errors import ConfigError, UserError
from src.trainers.job_link import JobLink
from src.trainers.launch_plan import LaunchConfig, divide_cores, make_plan, read_command_line
from src.trainers.launcher import exit_code, last_words
from tests.cpp_runner import ROOT
from tests.rank_tables import free_ports, rank_table, write

SERVERS = ["127.0.0.1", "127.0.0.2"]
# Everything that a rank is told, for the test to read.
TELL = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
rank = int(os.environ["RANK_ID"])
told = {"pid": os.getpid(), "argv": sys.argv[1:], "cores": sorted(os.sched_getaffinity(0)), "env": dict(os.environ)}
Path(f"rank{rank}.part").write_text(json.dumps(told))
os.replace(f"rank{rank}.part", f"rank{rank}.json")
def others(count):
    while not all(Path(f"rank{i}.json").exists() for i in range(count)):
        time.sleep(0.01)
"""
# A rank that ends its step, saves and leaves when it is asked to; its data worker is not asked.
SAVES = """
worker = subprocess.Popen(["sleep", "60"])
def stop(number, frame):
    time.sleep(0.3)
    print("asked", number, "worker", worker.poll(), flush=True)
    worker.kill()
    sys.exit(CODE)
signal.signal(signal.SIGTERM, stop)
Path(f"ready{rank}").touch()
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a blank, where jobs run."""
    path = tmp_path / "my job"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def start(body: str, *words: object, server: str = "", **variables: str) -> subprocess.Popen:
    """distribute.py with these flags, and ranks that do this."""
    script = Path("rank.py")
    script.write_text(TELL + body)
    command = [sys.executable, str(ROOT / "distribute.py"), *map(str, words), str(script), "--key", "two words"]
    environment = {**os.environ, "SERVER_ID": server, "MY_PASSWORD": "hush", **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(body: str, *words: object, **variables: str) -> subprocess.CompletedProcess:
    process = start(body, *words, **variables)
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def told(rank: int) -> dict:
    return json.loads(Path(f"rank{rank}.json").read_text())


def wait_for(*names: str) -> None:
    deadline = time.monotonic() + 30
    while not all(Path(name).exists() for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


# ---------------------------------------------------------------------------------------------------------------------
# Jobs that end well


def test_ranks_are_told_who_they_are(folder):
    table = write(folder / "my table.json", rank_table(["192.0.2.10"], 2))
    tree = json.loads(table.read_text())
    for device in tree["server_list"][0]["device"]:
        device["device_id"] = str(int(device["device_id"]) + 4)
    write(table, tree)
    ran = run("others(2)", "--rank_table_file", table, RANK_TABLE_FILE="stale", MS_ROLE="", RANK_SIZE="8")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "start training for rank 1, device 5 rank_id 1\n" in ran.stdout
    ports = set()
    for rank in (0, 1):
        seen = told(rank)
        assert seen["argv"] == [
            *("--output_dir", f"train_parallel{rank}", "--device_id", str(rank + 4)),
            *("--key", "two words"),
        ]
        names = ("RANK_ID", "RANK_SIZE", "DEVICE_ID", "DEVICE_NUM", "MS_ROLE", "MS_WORKER_NUM", "MS_NODE_ID")
        values = [str(rank), "2", str(rank + 4), "2", "MS_WORKER", "2", str(rank)]
        assert [seen["env"][name] for name in names] == values
        assert seen["env"]["MS_SCHED_HOST"] == "127.0.0.1"
        ports.add(seen["env"]["MS_SCHED_PORT"])
        assert "RANK_TABLE_FILE" not in seen["env"]
        log = Path(f"train_parallel{rank}/env.log").read_text()
        assert f"DEVICE_ID={rank + 4}\n" in log
        assert "hush" not in log
    assert len(ports) == 1


def test_one_device_needs_no_cluster(folder):
    ran = run("", "--device_num", 1, "--log_folder", "logs of ")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert Path("logs of 0/log.txt").is_file()
    assert not Path("logs of 0/scheduler.log").exists()
    assert "MS_ROLE" not in told(0)["env"]
    assert told(0)["env"]["RANK_SIZE"] == "1"


def test_cores_are_divided(folder):
    cores = sorted(os.sched_getaffinity(0))
    ran = run("others(2)", "--device_num", 2)
    assert ran.returncode == 0
    if len(cores) > 1:
        share = len(cores) // 2
        assert ran.stdout.startswith(f"the number of logical core {len(cores)}\navg_core_per_rank {share}\ncore_gap ")
        assert [told(rank)["cores"] for rank in (0, 1)] == [cores[:share], cores[share : 2 * share]]
    many = len(cores) + 1
    ran = run("", "--device_num", many)
    assert ran.returncode == 0
    assert "logical core" not in ran.stdout
    assert all(told(rank)["cores"] == cores for rank in range(many))


def test_shares_of_cores():
    assert divide_cores([0, 1, 2, 3, 8, 9, 10, 11], 3) == [(0, 1), (2, 3), (8, 9)]
    assert divide_cores([4, 5], 2) == [(4,), (5,)]
    assert divide_cores([4, 5], 3) == [(), (), ()]


# ---------------------------------------------------------------------------------------------------------------------
# Jobs that do not


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("print('error: step 7: not finite'); print('more'); sys.exit(5)", 5, ["error: step 7: not finite"]),
        ("print(*range(9), sep='\\n', flush=True); os.kill(os.getpid(), 9)", 137, list("45678")),
    ],
)
def test_dead_rank_ends_the_job(end, code, words, folder):
    Path("train_parallel1").mkdir()
    Path("train_parallel1/log.txt").write_text("error: of an earlier run\n")
    # The others have children of their own, and listen to nobody.
    body = f"""
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(f"child{{rank}}").write_text(str(subprocess.Popen(["sleep", "60"]).pid))
while not all(Path(f"child{{number}}").is_file() for number in range(3)):
    time.sleep(0.01)
if rank == 1:
    Path("died").write_text(str(time.time()))
    {end}
time.sleep(60)
"""
    process = start(body, "--device_num", 3)
    wait_for("died")
    family = psutil.Process(process.pid).children(recursive=True)
    _, errors = process.communicate(timeout=30)
    assert time.time() - float(Path("died").read_text()) < 5
    assert process.returncode == code
    last = f"error: rank 1: ended with exit code {code}, so the job ends; its log is train_parallel1/log.txt"
    assert errors.splitlines() == [*words, last]
    children = [int(Path(f"child{rank}").read_text()) for rank in range(3)]
    pids = [told(rank)["pid"] for rank in range(3)] + children
    assert_gone(family + [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)])


def test_killed_launcher_leaves_nothing(folder):
    process = start("others(2)\ntime.sleep(60)", "--device_num", 2)
    wait_for("rank0.json", "rank1.json")
    family = psutil.Process(process.pid).children(recursive=True)
    # Two ranks and the scheduler.
    assert len(family) >= 3
    process.kill()
    process.communicate(timeout=10)
    assert_gone(family)


@pytest.mark.parametrize(("codes", "code"), [([75, 75], 75), ([75, 0], 75), ([75, 1], 1)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_ranks_save(number, codes, code, folder):
    process = start(SAVES.replace("CODE", f"{codes}[rank]"), "--device_num", 2)
    wait_for("ready0", "ready1")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors.startswith("stopping: ranks end their step and save, a second signal kills them\n")
    if code == 75:
        assert errors.splitlines()[1:] == ["error: interrupted, run the same command to go on"]
    for rank in (0, 1) if code == 75 else (1,):
        # Once each, and workers not at all.
        assert Path(f"train_parallel{rank}/log.txt").read_text() == "asked 15 worker None\n"


@pytest.mark.slow
def test_ranks_that_wait_for_one_that_has_stopped_are_ended(folder):
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN if rank else signal.SIG_DFL)\n"
    body += "Path(f'ready{rank}').touch()\ntime.sleep(60)"
    process = start(body, "--device_num", 2)
    wait_for("ready0", "ready1")
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75
    assert errors.splitlines()[-1] == "error: interrupted, run the same command to go on"


def test_second_signal_kills(folder):
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nothers(2)\nPath(f'ready{rank}').touch()\ntime.sleep(60)"
    process = start(body, "--device_num", 2)
    wait_for("ready0", "ready1")
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    _, errors = process.communicate(timeout=5)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "error: job: killed by a second signal, the last checkpoint is kept"
    assert_gone(family)


def test_codes_and_last_words(tmp_path):
    assert [exit_code(returned) for returned in (0, 5, -9)] == [0, 5, 137]
    log = tmp_path / "log.txt"
    log.write_bytes(b"error: before\n" + b"a\n\xff\nb\n")
    assert last_words(log, 14) == ["a", "\ufffd", "b"]
    log.write_bytes(b"x\n" * 9 + b"error: why\nmore\n")
    assert last_words(log, 0) == ["error: why"]


# ---------------------------------------------------------------------------------------------------------------------
# Nothing is started


def test_port_in_use(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run("", "--device_num", 2, "--sched_port", port)
    assert ran.returncode == 2
    rule = "is in use: does another job run? Else choose another port, the same on all servers"
    assert ran.stderr == f"error: --sched_port: {rule}. Received: 127.0.0.1:{port}\n"
    assert [path.name for path in folder.iterdir()] == ["rank.py"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--device_num", "2"], "command line: the file that all ranks run must be given"),
        (["--device_num", "2", "absent.py"], "command line: no such file. Received: absent.py"),
        (["--devices", "2", "here.py"], "--devices: no such flag. Known: --device_num"),
        (["here.py", "--device_num", "2"], "--rank_table_file: must be given, or --device_num"),
        (["--rank_table_file", "absent.json", "here.py"], "absent.json: the rank table cannot be read"),
        (
            ["--rank_table_file", "t.json", "--device_num", "3", "here.py"],
            "--device_num: must agree with the rank table",
        ),
        (["--rank_table_file", "far.json", "here.py"], "far.json: no server has the name or an address"),
    ],
)
def test_command_lines_with_faults(argv, line, folder, monkeypatch):
    monkeypatch.delenv("SERVER_ID", raising=False)
    Path("here.py").touch()
    write(Path("t.json"), rank_table(["192.0.2.10"], 2))
    write(Path("far.json"), rank_table(["192.0.2.10", "192.0.2.11"], 2))
    with pytest.raises(ConfigError) as caught:
        make_plan(*read_command_line(argv))
    assert str(caught.value).startswith(line)


def test_first_server_that_is_elsewhere(folder, monkeypatch):
    monkeypatch.setenv("SERVER_ID", "192.0.2.10")
    path = write(Path("far.json"), rank_table(["192.0.2.10", "192.0.2.11"], 2))
    with pytest.raises(ConfigError, match="its first server is not this machine"):
        make_plan(LaunchConfig(rank_table_file=str(path)), "train.py", ())


# ---------------------------------------------------------------------------------------------------------------------
# Two servers, one launcher each


def start_two(body: str) -> list[subprocess.Popen]:
    path = write(Path("two.json"), rank_table(SERVERS, 2))
    words = ("--rank_table_file", path, "--sched_port", free_ports())
    # The second one may come first.
    return [start(body, *words, server=server) for server in reversed(SERVERS)][::-1]


def test_two_servers_work_as_one(folder):
    path = write(Path("two.json"), rank_table(SERVERS, 2))
    words = ("--rank_table_file", path, "--sched_port", free_ports())
    # The second one may come first; no rank starts before all launchers are there.
    body = "others(4)\ntime.sleep(1.5 * (rank > 1))"
    second = start(body, *words, server=SERVERS[1])
    time.sleep(0.5)
    assert not Path("rank2.json").exists()
    first = start(body, *words, server=SERVERS[0])
    # The first one's ranks are done before the others, which need its scheduler.
    wait_for("rank0.json", "rank1.json", "rank2.json", "rank3.json")
    time.sleep(0.7)
    assert first.poll() is None
    for process in (first, second):
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    assert [told(rank)["env"]["DEVICE_ID"] for rank in range(4)] == ["0", "1", "0", "1"]
    assert {told(rank)["env"]["MS_SCHED_HOST"] for rank in range(4)} == {SERVERS[0]}
    assert {told(rank)["env"]["MS_WORKER_NUM"] for rank in range(4)} == {"4"}
    assert Path("train_parallel0/scheduler.log").exists()
    assert not Path("train_parallel2/scheduler.log").exists()


@pytest.mark.parametrize("dying", [1, 3])
def test_dead_rank_ends_the_job_on_both_servers(dying, folder):
    body = f"others(4)\nif rank == {dying}: print('error: disk full'); sys.exit(3)\ntime.sleep(60)"
    both = dict(zip(SERVERS, start_two(body), strict=True))
    wait_for("rank3.json", "rank2.json", "rank1.json", "rank0.json")
    started = time.monotonic()
    errors = {server: process.communicate(timeout=30)[1] for server, process in both.items()}
    assert time.monotonic() - started < 5
    assert [process.returncode for process in both.values()] == [3, 3]
    here, there = (SERVERS[0], SERVERS[1]) if dying == 1 else (SERVERS[1], SERVERS[0])
    reason = f"rank {dying}: ended with exit code 3, so the job ends; its log is train_parallel{dying}/log.txt"
    assert errors[here] == f"error: disk full\nerror: {reason}\n"
    assert errors[there] == f"error: server {here}: {reason}\n"


def test_dead_launcher_ends_the_job_on_the_other_server(folder):
    first, second = start_two("others(4)\ntime.sleep(60)")
    wait_for("rank3.json", "rank2.json", "rank1.json", "rank0.json")
    first.kill()
    _, errors = second.communicate(timeout=5)
    assert second.returncode == 1
    assert errors == "error: server 127.0.0.1: its launcher is gone, so the job ends\n"
    first.communicate()


def plan_of(server: str, port: int, monkeypatch: pytest.MonkeyPatch, devices: int = 2) -> JobLink:
    monkeypatch.setenv("SERVER_ID", server)
    path = write(Path(f"table {server} {devices}.json"), rank_table([*SERVERS, "127.0.0.3"], devices))
    settings = LaunchConfig(rank_table_file=str(path), sched_port=port)
    return JobLink(make_plan(settings, "train.py", ()))


def test_server_that_does_not_come_is_named(folder, monkeypatch):
    port = free_ports()
    with plan_of(SERVERS[0], port, monkeypatch) as first, pytest.raises(UserError) as caught:
        first.connect(0.3, lambda: True)
    assert str(caught.value).endswith("no launcher in 0 s on server 127.0.0.2, 127.0.0.3: start it there as here")
    with plan_of(SERVERS[1], port, monkeypatch) as second, pytest.raises(UserError, match=r"on server 127\.0\.0\.1:"):
        second.connect(0.3, lambda: True)
    # A signal ends the waiting.
    second.connect(60, lambda: False)


def test_other_table_is_refused(folder, monkeypatch, capsys):
    port = free_ports()
    with plan_of(SERVERS[0], port, monkeypatch) as first, plan_of(SERVERS[1], port, monkeypatch, 3) as second:
        with pytest.raises(UserError, match="no launcher in"):
            first.connect(0, lambda: True)
        second._call()
        with pytest.raises(UserError, match="no launcher in"):
            first.connect(0.1, lambda: True)
        reason = "servers 127.0.0.2 and 127.0.0.1 have different rank tables, or start different files"
        assert capsys.readouterr().err == f"warning: refused: {reason}\n"
        with pytest.raises(UserError, match=reason):
            second.connect(1, lambda: True)


def test_strangers_are_ignored(folder, monkeypatch):
    port = free_ports()
    with plan_of(SERVERS[0], port, monkeypatch) as first:
        with pytest.raises(UserError, match="no launcher in"):
            first.connect(0, lambda: True)
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"\xff\n", b"x" * (1 << 18), b""):
            with socket.create_connection((SERVERS[0], port + 1)) as stranger:
                stranger.sendall(noise)
            with pytest.raises(UserError, match="no launcher in"):
                first.connect(0.1, lambda: True)
