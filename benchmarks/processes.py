"""Programs that a benchmark starts, ended together with all that they have started themselves."""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Whatever a program starts inherits its environment, also in a session of its own, as Ray's
# processes and LitServe's workers are; so a mark in it finds them all.
_MARK = "RLCAR_BENCHMARK_MARK"
_GONE_WITHIN_S = 20.0


@contextlib.contextmanager
def program(
    command: Sequence[str],
    *,
    stop: signal.Signals = signal.SIGTERM,
    within_s: float = 60.0,
    **options: Any,
) -> Iterator[subprocess.Popen[Any]]:
    """Runs a program until the block ends, however it ends; then nothing of it is left.

    It is asked to end with `stop`; what is still there after `within_s` is killed. Raises
    RuntimeError if something is left even then. Options are those of Popen.
    """
    mark = uuid.uuid4().hex
    environment = {**(options.pop("env", None) or os.environ), _MARK: mark}
    # Ctrl-C is for this process, which ends the program in order.
    process = subprocess.Popen(command, env=environment, start_new_session=True, **options)
    try:
        yield process
    finally:
        try:
            if process.poll() is None:
                process.send_signal(stop)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(within_s)
        finally:  # also after a second Ctrl-C
            _kill_all(mark, process)


def started_by(mark: str) -> list[int]:
    """The processes that have the mark in the environment that they were started with."""
    found, wanted = [], f"{_MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def _kill_all(mark: str, process: subprocess.Popen[Any]) -> None:
    end_s = time.monotonic() + _GONE_WITHIN_S
    while left := started_by(mark):
        if time.monotonic() > end_s:
            raise RuntimeError(f"processes {left} of {process.args} cannot be ended")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.05)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
