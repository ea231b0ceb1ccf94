"""Processes of jobs, which outlive a campaign that is killed.

A process waits behind a gate until the journal knows it: a shell reads one line from a pipe, and
then becomes the program. If the campaign dies in between, the pipe ends and so does the shell. So
no program ever runs that the next campaign does not find.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from rlcar.system import process_state

_GATE = 'read -r go || exit 1; exec "$@" < /dev/null'
_POLL_S = 0.05


class JobProcess:
    """The process of a job, started by this campaign or by an earlier one."""

    def __init__(self, identity: Mapping[str, Any], child: "subprocess.Popen[bytes] | None" = None):
        """`identity` is as `process_state.identity` describes it; `child` is for our own ones."""
        self.identity = dict(identity)
        self._child = child
        self.has_ended = False

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        note: Callable[[dict[str, Any]], None],
    ) -> Self:
        """Starts a program in a process group of its own; `note` records who it is beforehand.

        The campaign passes Ctrl-C on, and can end all processes that the program has started.
        """
        with log.open("ab") as file:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        process = cls(process_state.identity(child.pid), child)
        assert child.stdin is not None
        try:
            note(process.identity)
            with contextlib.suppress(BrokenPipeError):  # it was killed already
                child.stdin.write(b"go\n")
                child.stdin.flush()
        except BaseException:
            process.kill()
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
        return process

    @classmethod
    def adopt(cls, identity: Mapping[str, Any]) -> Self | None:
        """Returns the process of an earlier campaign; None if it has ended or ran elsewhere."""
        if not process_state.was_here(dict(identity)) or process_state.is_gone(dict(identity)):
            return None
        return cls(identity)

    @property
    def pid(self) -> int:
        """Number of the process, and of its process group."""
        return int(self.identity["pid"])

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None for a process of an earlier campaign."""
        return None if self._child is None else self._child.returncode

    def is_over(self) -> bool:
        """Whether it has ended."""
        if not self.has_ended:
            if self._child is not None:
                self.has_ended = self._child.poll() is not None
            else:
                self.has_ended = process_state.is_gone(self.identity)
        return self.has_ended

    def terminate(self) -> None:
        """Asks it to save and stop."""
        if not self.is_over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def wait(self, at_most_s: float) -> bool:
        """Waits for its end; returns whether it has ended."""
        end_s = time.monotonic() + at_most_s
        while not self.is_over():
            if time.monotonic() >= end_s:
                return False
            time.sleep(_POLL_S)
        return True

    def kill(self) -> None:
        """Kills all processes of its group, also those that outlive it."""
        # The kernel gives the number away only when nobody is left in the group.
        if not process_state.is_reused(self.identity):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait(_KILLED_WITHIN_S)


# Variables with which a user shares the memory of a device out.
_OF_MEMORY = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_KILLED_WITHIN_S = 30.0  # a process that writes to a disk which does not answer cannot be killed


def environment_of(slot: int, slots: int, devices: Sequence[int]) -> dict[str, str]:
    """Returns the variables that give a slot its device, or its part of a shared one."""
    found = {"CUDA_VISIBLE_DEVICES": str(devices[slot % len(devices)])} if devices else {}
    # By default, the first process on a device takes three quarters of its memory. Without a choice
    # of devices, all jobs use the same ones.
    if slots > max(1, len(devices)) and not any(name in os.environ for name in _OF_MEMORY):
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return found


def oom_kills() -> int:
    """Returns how many processes the kernel has killed for their memory; 0 where it is unknown."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0


def last_line(log: Path, at_most_bytes: int = 4096) -> str:
    """Returns the last line of a log that is not empty, without its prefix `error: `."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - at_most_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""
