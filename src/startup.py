"""How every command starts and ends: installation check, one line per error, exit codes.

0 done · 2 usage or config · 3 data · 4 checkpoint or model file · 5 numbers · 75 stopped by a signal, state saved · 1
else.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

from src.device import (
    PACKAGES,
    check_installation,
    in_cluster,
    is_scheduler,
    leave_cluster,
    prepare_libraries,
    serve_cluster,
    stop_on_signals,
)
from src.errors import INTERRUPTED, UserError


def run(main: Callable[[list[str]], None], needs: tuple[str, ...] = PACKAGES) -> None:
    """Run a command's ``main(argv)`` and leave with its exit code. A traceback is printed for a bug only.

    Args:
        main: the command.
        needs: distributions without which it cannot work.
    """
    try:
        _run(main, needs)
    except SystemExit as end:
        leave_cluster(end.code or 0)
        raise
    except BaseException:
        if in_cluster():
            traceback.print_exc()
        leave_cluster(1)
        raise
    leave_cluster(0)


def _run(main: Callable[[list[str]], None], needs: tuple[str, ...]) -> None:
    argv = sys.argv[1:]
    verbose = "--verbose" in argv
    try:
        check_installation(needs)
        prepare_libraries(verbose)
        stop_on_signals()
        if is_scheduler():
            serve_cluster()
        main(argv)
    except UserError as error:
        if verbose:
            raise
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("error: interrupted, run the same command to go on", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has left; nothing more can be said, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        full, closed = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}, {errno.EROFS, errno.EACCES, errno.EPERM}
        if verbose or error.errno not in full | closed | {errno.ENOTDIR, errno.EISDIR}:
            raise
        print(f"error: {error.filename or 'output'}: {error.strerror.lower()}", file=sys.stderr)
        sys.exit(1)
