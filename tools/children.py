"""A command in a process of its own, which ends with the process that started it, however that one ends."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
GRACE = 20  # seconds to end after SIGTERM


def end_with(parent: int, number: signal.Signals) -> None:
    """Called in the child before its program starts: Linux sends it the signal when its parent ends, if by SIGKILL."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # which has ended before this was asked for
            os._exit(1)


def run_command(command: Sequence[str], log: Path, group: bool = False) -> int:
    """Run a command, append what it says to the log, and return its exit code; an exception here ends it.

    Args:
        group: whether it is a launcher, which ends its own processes at SIGTERM, and would leave them when killed.
    """
    parent, number = os.getpid(), signal.SIGTERM if group else signal.SIGKILL
    with log.open('ab') as output:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: end_with(parent, number),
        )
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
