"""One process per device of this server: started together, watched, ended together.

    launch(settings, "train.py", ("--config", "configs/NAME.yaml"))

MindSpore's own launcher needs half a minute to notice a dead rank, and leaves ranks behind when it is stopped itself.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from src.cluster import INTERRUPTED, die_with
from src.device import environment, num_cores
from src.errors import UserError
from src.trainers.job_link import JobLink
from src.trainers.launch_plan import LaunchConfig, Plan, Rank, make_plan

_PROJECT = Path(__file__).parents[2]
# Seconds for all servers to come together, as msrun's.
_JOIN_SECONDS = 600
_LOOK_SECONDS = 0.05
# What another way of starting has left would contradict what ranks are told.
_FOREIGN = ("RANK_TABLE_FILE", "MINDSPORE_HCCL_CONFIG_PATH", "MS_ROLE", "MS_NODE_ID", "OMPI_COMM_WORLD_SIZE")
_LAST_LINES = 5
# Seconds that ranks have to follow the first one that has stopped, which has waited until the state is saved.
_FOLLOW_SECONDS = 10


class RankError(UserError):
    """A rank has failed, and the job with it.

    Args:
        who: the rank.
        code: its exit code, 128 and the signal's number if one has ended it.
        log: where it wrote.
    """

    def __init__(self, who: str, code: int, log: Path):
        super().__init__(who, f"ended with exit code {code}, so the job ends; its log is {log}")
        self.exit_code = code


def launch(settings: LaunchConfig, script: str, arguments: tuple[str, ...]) -> None:
    """Run a Python file as all ranks of this server; returns when every one has ended with 0.

    A first SIGTERM, SIGINT or SIGHUP is passed on to the ranks, which end their step and save; a second one kills.

    Raises:
        ConfigError: nothing was started; see `make_plan`.
        RankError: the first rank that failed; the others were killed.
        UserError: other servers that do not come, or whose job failed.
        KeyboardInterrupt: a signal came, and all ranks have saved.
    """
    plan = make_plan(settings, script, arguments)
    with _Signals() as signals, JobLink(plan) as link:
        link.connect(_JOIN_SECONDS, lambda: not signals.count)
        if signals.count:
            raise KeyboardInterrupt
        _print_start(plan)
        with _Processes(plan) as processes:
            try:
                _watch(processes, link, signals)
            except UserError as error:
                processes.kill()
                link.report_failure(error)
                raise
        if INTERRUPTED in processes.codes.values():
            raise KeyboardInterrupt


def exit_code(returned: int) -> int:
    """A process's exit code as a shell has it: 128 and the signal's number if one has ended it."""
    return 128 - returned if returned < 0 else returned


def last_words(log: Path, start: int) -> list[str]:
    """Why a process ended, from its log: the lines that say error, else the last ones.

    Args:
        log: its log, which may hold earlier runs.
        start: where in it the process began, in bytes.
    """
    with log.open("rb") as stream:
        stream.seek(start)
        lines = stream.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.startswith("error:")] or lines[-_LAST_LINES:]


class _Signals:
    """Counts signals that ask the job to end, while it is open."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> _Signals:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        # `nohup` and a shell's background have switched some off.
        wanted = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


class _Processes:
    """The processes of a plan; all are gone when it is closed.

    Attributes:
        codes: exit codes of the ranks that have ended, by their numbers.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.codes: dict[int, int] = {}
        self._running: dict[int, subprocess.Popen] = {}
        self._scheduler: subprocess.Popen | None = None
        self._logs: dict[str, tuple[Path, int]] = {}
        self._is_stopping = False

    def __enter__(self) -> _Processes:
        plan, common = self.plan, _common_environment(self.plan)
        try:
            if plan.table.num_ranks > 1 and plan.is_first:
                log = plan.ranks[0].folder / "scheduler.log"
                # Any command of the project is a scheduler in this role.
                words = [str(_PROJECT / "distribute.py")]
                self._scheduler = self._start("scheduler", words, log, common | {"MS_ROLE": "MS_SCHED"})
            for rank in plan.ranks:
                variables = common | _variables_of(rank, plan)
                rank.folder.mkdir(parents=True, exist_ok=True)
                _write_env_log(rank.folder / "env.log", variables)
                # Given first: what the user says comes later, and wins.
                given = ["--output_dir", str(rank.folder), "--device_id", str(rank.device_id)]
                words = [plan.script, *given, *plan.arguments]
                log = rank.folder / "log.txt"
                self._running[rank.number] = self._start(f"rank {rank.number}", words, log, variables, rank.cores)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def are_running(self) -> bool:
        """Whether a rank is."""
        return bool(self._running)

    def look(self) -> None:
        """Note which ranks have ended.

        Raises:
            RankError: one that failed; with its last words printed.
        """
        ended = {number: process.poll() for number, process in self._running.items()}
        for number in [number for number, returned in ended.items() if returned is not None]:
            _kill_group(self._running.pop(number))
            code = exit_code(ended[number])
            # One that was just beginning had nothing to save.
            self.codes[number] = INTERRUPTED if self._is_stopping and code == 128 + signal.SIGTERM else code
        failed = [number for number, code in self.codes.items() if code not in (0, INTERRUPTED)]
        if failed:
            self._fail(f"rank {failed[0]}", self.codes[failed[0]])
        if self._running and self._scheduler is not None and self._scheduler.poll():
            self._fail("scheduler", exit_code(self._scheduler.returncode))

    def stop(self) -> None:
        """Ask all ranks to end their step, save and leave; not their data workers, whom they need for it."""
        self._is_stopping = True
        for process in self._running.values():
            process.terminate()

    def kill(self) -> None:
        """End everything that was started, at once."""
        processes = [*self._running.values()] + [self._scheduler] * bool(self._scheduler)
        for process in processes:
            if process.poll() is None:
                _kill_group(process)
        for process in processes:
            process.wait()
        self._running, self._scheduler = {}, None

    def _start(
        self, who: str, words: list[str], log: Path, variables: dict[str, str], cores: tuple[int, ...] = ()
    ) -> subprocess.Popen:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            self._logs[who] = (log, stream.tell())
            return subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=variables,
                # A process group of its own, so that Ctrl-C reaches the launcher alone.
                start_new_session=True,
                preexec_fn=functools.partial(_begin_child, os.getpid(), cores),
            )

    def _fail(self, who: str, code: int) -> None:
        log, start = self._logs[who]
        for line in last_words(log, start):
            print(line, file=sys.stderr)
        raise RankError(who, code, log)


def _watch(processes: _Processes, link: JobLink, signals: _Signals) -> None:
    """Until all ranks of the job have ended well."""
    was_stopped = is_reported = False
    first_left = math.inf
    while processes.are_running or link.is_needed:
        processes.look()
        link.check()
        if signals.count and not was_stopped:
            print("stopping: ranks end their step and save, a second signal kills them", file=sys.stderr, flush=True)
            processes.stop()
            was_stopped = True
        elif signals.count > 1:
            raise UserError("job", "killed by a second signal, the last checkpoint is kept")
        if INTERRUPTED in processes.codes.values():
            first_left = min(first_left, time.monotonic())
            if time.monotonic() > first_left + _FOLLOW_SECONDS:
                # They were coming together, and wait for the ones that have left.
                processes.kill()
        if not processes.are_running and not is_reported:
            link.report_done()
            is_reported = True
        time.sleep(_LOOK_SECONDS)


def _common_environment(plan: Plan) -> dict[str, str]:
    """What the scheduler and all ranks get."""
    size = plan.table.num_ranks
    variables = environment(without=_FOREIGN, RANK_SIZE=size, DEVICE_NUM=size, PYTHONUNBUFFERED=1)
    if size > 1:
        variables |= {"MS_WORKER_NUM": str(size), "MS_SCHED_HOST": plan.host, "MS_SCHED_PORT": str(plan.port)}
        variables.setdefault("MS_TOPO_TIMEOUT", str(_JOIN_SECONDS))
    return variables


def _variables_of(rank: Rank, plan: Plan) -> dict[str, str]:
    """What tells a rank from the others."""
    variables = {"RANK_ID": str(rank.number), "DEVICE_ID": str(rank.device_id)}
    if plan.table.num_ranks > 1:
        variables |= {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank.number)}
    return variables


def _write_env_log(target: Path, variables: dict[str, str]) -> None:
    """By the rule of the shell scripts, which knows what is no secret."""
    words = [
        "bash",
        "-c",
        'source "$1" && write_env_log "$2"',
        "bash",
        str(_PROJECT / "scripts" / "run_logged.sh"),
        str(target),
    ]
    subprocess.run(words, env=variables, check=True)


def _begin_child(parent: int, cores: tuple[int, ...]) -> None:
    """In a child, before its program."""
    die_with(parent)
    if cores:
        os.sched_setaffinity(0, cores)


def _kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _print_start(plan: Plan) -> None:
    """The zoo's lines."""
    share = len(plan.ranks[0].cores)
    if share:
        print(f"the number of logical core {num_cores()}")
        print(f"avg_core_per_rank {share}")
        print(f"core_gap {share - 1}")
    for rank in plan.ranks:
        print(f"start training for rank {rank.number}, device {rank.device_id} rank_id {rank.number}")
    print(f"logs: {', '.join(str(rank.folder / 'log.txt') for rank in plan.ranks)}", flush=True)
