"""Says whether the rlcar of this container is healthy: `python -m rlcar.system.health`.

It is the command of the image's HEALTHCHECK, and can be an `exec` probe. It finds the program by
its command line. A server or a page is asked at its port; a training is judged by the signs of life
in its run folder; any other program is healthy while it runs. It prints one sentence, and exits
with 1 for an unhealthy program. It imports nothing heavy, because it runs several times a minute.
"""

import http.client
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlcar.system import heartbeat, process_state

_TIMEOUT_S = 5.0
# Verb -> the option of its port, the default (empty: no port), and the route that tells its health.
_ROUTES = {
    "serve": ("--port", "8000", "/health/ready"),
    "watch": ("--port", "8001", "/health"),
    "monitor": ("--metrics-port", "", "/metrics"),
}
_EVERY_ADDRESS = ("0.0.0.0", "::", "")


class Health(NamedTuple):
    """The verdict, with its reason for `docker inspect`."""

    is_healthy: bool
    reason: str


class Program(NamedTuple):
    """A running `rlcar VERB`."""

    verb: str
    arguments: Sequence[str]  # those after the verb
    folder: Path  # its working directory

    def option(self, name: str, default: str) -> str:
        """Returns the value of the last `NAME VALUE` or `NAME=VALUE`."""
        value = default
        for index, argument in enumerate(self.arguments):
            if argument.startswith(f"{name}="):
                value = argument.partition("=")[2]
            elif argument == name and index + 1 < len(self.arguments):
                value = self.arguments[index + 1]
        return value


def find_program(processes: Path = Path("/proc")) -> Program | None:
    """Returns the oldest rlcar of this container; None if there is none."""
    numbers = sorted(int(entry.name) for entry in processes.iterdir() if entry.name.isdigit())
    for number in numbers:
        if number == os.getpid():
            continue
        try:
            line = (processes / str(number) / "cmdline").read_bytes()
            words = [os.fsdecode(word) for word in line.split(b"\0")[:-1]]
            verb_index = _verb_index(words)
            if verb_index is None:
                continue
            folder = Path(os.readlink(processes / str(number) / "cwd"))
        except OSError:  # It has ended, or belongs to somebody else.
            continue
        return Program(words[verb_index], words[verb_index + 1 :], folder)
    return None


def _verb_index(words: Sequence[str]) -> int | None:
    """Returns where the verb stands in a command line of rlcar; None in any other one."""
    for index, word in enumerate(words):
        is_module = index > 0 and words[index - 1] == "-m" and word in ("rlcar", "rlcar.cli")
        if is_module or os.path.basename(word) == "rlcar":
            following = range(index + 1, len(words))
            return next((after for after in following if not words[after].startswith("-")), None)
    return None


def health_of(program: Program | None) -> Health:
    """Returns the health of a program."""
    if program is None:
        return Health(True, "no command of rlcar runs here: nothing to check")
    if program.verb in _ROUTES and _port_and_path(program)[0]:
        return _health_of_server(program)
    if program.verb == "train":
        return _health_of_training(program)
    return Health(True, f"rlcar {program.verb} runs")


def _port_and_path(program: Program) -> tuple[str, str]:
    option, default, path = _ROUTES[program.verb]
    if program.verb == "serve" and "--wait-for-model" in program.arguments:
        path = "/health/live"  # a server that waits for its first model is not ready, but healthy
    return program.option(option, default), path


def _health_of_server(program: Program) -> Health:
    port, path = _port_and_path(program)
    host = program.option("--host", "127.0.0.1")
    if host in _EVERY_ADDRESS:
        host = "127.0.0.1"
    url = f"http://{host}:{port}{path}"
    try:
        connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Health(False, f"{url} does not answer: {error}")
    return Health(status == 200, f"{url} answers {status}")


def _health_of_training(program: Program) -> Health:
    """Judges the runs that a process of this container trains at present."""
    runs = program.folder / program.option("--runs", "runs")
    now_s = time.time()
    for file in sorted(runs.glob(f"*/{process_state.FILE}")):
        info = process_state.read(file.parent)
        if info.get("state") != "running" or not process_state.was_here(info):
            continue
        if process_state.is_gone(info):
            continue
        observer = process_state.Observer(file.parent)
        renewed_s = observer.renewed_ago_s(now_s)
        reported = observer.sign_of_life(now_s)
        if renewed_s is not None and renewed_s > heartbeat.FROZEN_AFTER_S:
            return Health(False, f"{file.parent} has had no sign of life for {renewed_s:.0f} s")
        if reported is not None and heartbeat.is_frozen(reported):
            silent = f"no progress in stage {reported.stage!r} for {reported.silent_s:.0f} s"
            return Health(False, f"{file.parent}: {silent}")
        return Health(True, f"{file.parent} is being trained")
    return Health(True, f"rlcar train runs, and has no run in {runs} yet")


if __name__ == "__main__":
    verdict = health_of(find_program())
    sys.stdout.write(verdict.reason + "\n")
    sys.exit(0 if verdict.is_healthy else 1)
