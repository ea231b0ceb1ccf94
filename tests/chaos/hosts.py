"""Several hosts on one machine: network, process and mount namespaces on a virtual switch."""

import contextlib
import itertools
import os
import shutil
import signal
import string
import subprocess
import sys
import time
from pathlib import Path

# Each host has its own copy of this folder, for Ray's sockets and files, and of /dev/shm.
RAY_FOLDER = "/tmp/rlcar-host"
_LETTERS = itertools.cycle(string.ascii_lowercase)
# Restarts a service that has died, as a service manager would.
_SERVICE = 'while :; do "$@" >> "$LOG" 2>&1; sleep 1; done'
_INIT = f"""
mkdir -p {RAY_FOLDER} && mount -t tmpfs tmpfs {RAY_FOLDER} && mount -t tmpfs tmpfs /dev/shm
{_SERVICE}
"""


def why_not() -> str | None:
    """Returns why this machine cannot use namespaces; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces need root on Linux"
    missing = [name for name in ("ip", "bridge", "unshare", "nsenter") if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install iproute2 util-linux)"
    name = f"rlcar-probe-{os.getpid()}"
    try:
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "add", "probe", "type", "bridge")
        run("unshare", "--pid", "--mount", "--fork", "--mount-proc", "true")
    except subprocess.CalledProcessError as error:
        return f"the kernel refuses {' '.join(error.cmd)}: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None


def run(*command: str) -> str:
    """Runs a command to its end and returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


class Hosts:
    """Hosts on one switch; `with` removes every trace of them."""

    def __init__(self, logs: Path):
        self._logs = logs
        # Unlike that of other hosts of this process; an interface's name has 15 characters at most.
        self._prefix = f"rl{os.getpid() % 10_000}{next(_LETTERS)}"
        self._switch = f"{self._prefix}-switch"
        self._names: list[str] = []
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._services: dict[str, tuple[list[str], dict[str, str]]] = {}
        self._programs: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Hosts":
        run("ip", "netns", "add", self._switch)
        run("ip", "-n", self._switch, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", self._switch, "link", "set", "switch", "up")
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._running):
            self.kill(name)
        for program in self._programs:  # they ended with their hosts
            program.wait(timeout=30)
        for name in [*map(self._namespace, self._names), self._switch]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def add(self, name: str) -> str:
        """Connects a new host to the switch; returns its address."""
        namespace, inside, port = self._namespace(name), f"{self._prefix}-{name}", self._port(name)
        self._names.append(name)
        address = f"10.77.0.{len(self._names)}"
        run("ip", "netns", "add", namespace)
        run("ip", "link", "add", inside, "type", "veth", "peer", "name", port)
        run("ip", "link", "set", inside, "netns", namespace)
        run("ip", "link", "set", port, "netns", self._switch)
        run("ip", "-n", self._switch, "link", "set", port, "master", "switch", "up")
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", inside)
        run("ip", "-n", namespace, "link", "set", inside, "up")
        return address

    def start(self, name: str, service: list[str], environment: dict[str, str]) -> None:
        """Boots a host with one service, which restarts whenever it ends."""
        self._services[name] = service, environment
        command = ["ip", "netns", "exec", self._namespace(name), "unshare", "--pid", "--mount"]
        command += ["--fork", "--kill-child", "--mount-proc", "bash", "-c", _INIT, name, *service]
        self._running[name] = subprocess.Popen(
            command,
            env=os.environ | environment | {"LOG": str(self._logs / f"{name}.log")},
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )

    def boot(self, name: str) -> None:
        """Boots a host again with its former service."""
        self.start(name, *self._services[name])

    def kill(self, name: str) -> None:
        """Ends all processes of a host at once, as a power cut would."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)  # its child, the host's first process, dies with it
        process.wait()

    def cut(self, name: str) -> None:
        """Disconnects a host: its packets are dropped without an error."""
        self._set_port(name, "0")

    def mend(self, name: str) -> None:
        """Connects the host again."""
        self._set_port(name, "3")

    def popen(self, name: str, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts a program on a host."""
        _, environment = self._services[name]
        with log.open("ab") as out:
            program = subprocess.Popen(
                [*self._inside(name), *command],
                env=os.environ | environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._programs.append(program)
        return program

    def run(self, name: str, *command: str) -> str:
        """Runs a command on a host to its end."""
        return run(*self._inside(name), *command)

    def process_ids(self, name: str, program: str) -> list[str]:
        """Returns the process ids of a program on a host, in that host's numbering."""
        found = subprocess.run(
            [*self._inside(name), "pgrep", "-f", program], capture_output=True, text=True
        )
        return found.stdout.split()

    def _inside(self, name: str) -> list[str]:
        first = self._first_process(name)
        return ["nsenter", "--target", first, "--net", "--pid", "--mount", "--"]

    def _first_process(self, name: str) -> str:
        outer = self._running[name].pid
        end_s = time.monotonic() + 10
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError, IndexError):
                children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
                return children[0]
            time.sleep(0.05)
        raise RuntimeError(f"host {name} does not start: see {self._logs}")

    def _set_port(self, name: str, state: str) -> None:
        run("bridge", "-n", self._switch, "link", "set", "dev", self._port(name), "state", state)

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _port(self, name: str) -> str:
        return f"{self._prefix}p{name}"
