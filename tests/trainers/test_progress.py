"""What a run says on a terminal and into a pipe."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

from src.trainers import progress
from tests.trainers.logged import FOLDER, child, log_steps, open_log


def test_lines_of_the_zoo_and_plain_lines_where_there_is_no_terminal(capsys):
    with open_log() as log:
        log_steps(log, 1, 14, loss_scale=1024.0)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"epoch: 1 step: 7, loss is {3 / 7}",
        "epoch time: 3500.000 ms, per step time: 500.000 ms",
        f"epoch: 1 acc: {1 - 1 / 7}, best acc is {1 - 1 / 7}",
        f"epoch: 2 step: 7, loss is {3 / 14}",
        "epoch time: 3500.000 ms, per step time: 500.000 ms",
        f"epoch: 2 acc: {1 - 1 / 14}, best acc is {1 - 1 / 14}",
    ]
    assert err.splitlines() == [
        f"epoch {epoch}/3 step {step}/7: loss {loss:.4f}, 8.0 img/s, lr {lr}, grad norm 1.5, data wait 10 %, "
        f"loss scale 1024, ETA {eta}"
        for epoch, step, loss, lr, eta in (
            (1, 3, (3 + 3 / 2 + 1) / 3, "3.00e-03", "00:02"),
            (1, 6, (3 / 4 + 3 / 5 + 3 / 6) / 3, "6.00e-03", "00:00"),
            (2, 3, (3 / 8 + 3 / 9 + 3 / 10) / 3, "1.00e-02", "00:02"),
            (2, 6, (3 / 11 + 3 / 12 + 3 / 13) / 3, "1.30e-02", "00:00"),
        )
    ]
    assert "\r" not in err


BRIEFLY = """
import sys, time
from pathlib import Path
from tests.trainers.logged import configured, update
from src.trainers.run_log import RunLog
with RunLog(Path(sys.argv[1]), configured(), 4) as log:
    for step in range(1, 5):
        time.sleep(0.25)
        log.step(update(step, loss_scale=512.0, skipped=step == 2))
"""


@pytest.mark.parametrize(("columns", "cut"), [(0, True), (200, False), (80, True)])
def test_a_bar_on_a_terminal(columns, cut):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    # The zoo's lines come from a pipe all the same, as where only stdout goes to a file.
    with child(BRIEFLY, FOLDER, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        out = process.communicate(timeout=60)[0]
    drawn = read_to_end(ours)
    assert "\n" not in drawn
    pattern = r"\repoch 1/3:  75%\|.{10}\| 3/4 \[00:\d\d<00:\d\d, loss 1\.0000, 8\.0 img/s"
    assert re.search(pattern, drawn)
    whole = re.search(pattern + r", lr 3\.00e-03, grad norm 1\.5, data wait 10 %, loss scale 512\]", drawn)
    assert bool(whole) != cut
    assert max(map(len, drawn.split("\r"))) < (columns or 120)
    assert out.splitlines() == [
        "=============Over Flow, skipping=============",
        "epoch: 1 step: 4, loss is 0.75",
        "epoch time: 2000.000 ms, per step time: 500.000 ms",
    ]


def read_to_end(descriptor: int) -> str:
    content = b""
    try:
        while piece := os.read(descriptor, 65536):
            content += piece
    except OSError:  # Linux's way to say that nobody holds the other side
        pass
    finally:
        os.close(descriptor)
    return content.decode()


def test_waiting_for_data_is_told(capsys, monkeypatch):
    monkeypatch.setattr(progress, "num_cores", lambda: 8)
    progress.print_data_wait(1.9, 10.0, 2)
    assert capsys.readouterr().err == ""
    progress.print_data_wait(3.8, 10.0, 8)
    assert capsys.readouterr().err == "warning: data wait 38 % of step time: smaller files or more cores would help\n"
    with open_log(workers=2) as log:
        log_steps(log, 1, 7, data_wait=0.19)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "warning: data wait 38 % of step time: try num_parallel_workers 8"
    )
