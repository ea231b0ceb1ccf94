"""Programs that end together with all processes that they started, and with who started them."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlcar.system.process_usage import process_files

# Every process that a program starts inherits its environment, even in a separate session, as Ray's
# processes and LitServe's workers have. A mark in the environment therefore identifies all of them.
_MARK = "RLCAR_PROGRAM_MARK"
_GONE_WITHIN_S = 20.0


# Below those that the kernel gives to outgoing connections, one of which could take the port before
# its server starts; above those of Ray's workers.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Returns a port of this host that a server can bind."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError(f"no port from {_PORTS[0]} to {_PORTS[-1]} is free")


# Asks the kernel to end this process when its parent is killed, and then executes the program.
# Doing so in a fork of the parent (`preexec_fn`) may deadlock, because of the parent's threads.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit("the process that started this one has ended")
os.execv(command[0], command)
"""


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """Returns a command that gets SIGTERM when the thread that starts it ends, also by `kill -9`.

    On Linux only; elsewhere it returns the command itself. Start it in the main thread. The first
    word is an absolute path.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-c", _LAUNCHER, str(os.getpid()), *command]


class Program(subprocess.Popen[Any]):
    """A process that can tell which processes belong to it; made by `program`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None, **options: Any):
        self.mark = uuid.uuid4().hex
        environment = {**(env or os.environ), _MARK: self.mark}
        # In a separate session: Ctrl-C reaches only this process, which then ends the program.
        super().__init__(command, env=environment, start_new_session=True, **options)

    def pids(self) -> list[int]:
        """Returns this process, its descendants, and all that carry its mark.

        HAProxy and Ray's processes do not always stay below the process that started them.
        """
        parents: dict[int, int] = {}
        for path in process_files("stat"):
            with contextlib.suppress(OSError):
                parent = path.read_text().rpartition(")")[2].split()[1]
                parents[int(path.parent.name)] = int(parent)
        found = {self.pid, *started_by(self.mark)}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)


@contextlib.contextmanager
def program(
    command: Sequence[str],
    *,
    stop: signal.Signals = signal.SIGTERM,
    within_s: float = 60.0,
    **options: Any,
) -> Iterator[Program]:
    """Runs a program until the `with` block ends; then none of its processes is left.

    Sends it the signal `stop`, and kills what still runs after `within_s`. Raises RuntimeError if
    a process cannot be ended. Options are those of Popen.
    """
    process = Program(command, options.pop("env", None), **options)
    try:
        yield process
    finally:
        try:
            if process.poll() is None:
                process.send_signal(stop)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(within_s)
        finally:  # also after a second Ctrl-C
            _kill_all(process)


def started_by(mark: str) -> list[int]:
    """Returns the processes whose initial environment contains the mark."""
    found, wanted = [], f"{_MARK}={mark}".encode()
    for path in process_files("environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def _kill_all(process: Program) -> None:
    end_s = time.monotonic() + _GONE_WITHIN_S
    while left := started_by(process.mark):
        if time.monotonic() > end_s:
            raise RuntimeError(f"processes {left} of {process.args!r} cannot be ended")
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
