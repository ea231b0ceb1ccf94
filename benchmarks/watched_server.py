"""`rlcar serve` as a process of its own, and what it and all processes below it use."""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.processes import Program, free_port, program

LANES = {
    "realtime": ("--lane", "realtime"),
    "direct": ("--lane", "realtime", "--direct"),
    "ray": ("--lane", "ray"),
}
START_S = 180.0
SETTLE_S = {"ray": 5.0}  # Ray's HAProxy closes connections while it loads its last configuration
SAMPLE_S = 0.1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LISTEN = "0A"  # a state in /proc/net/tcp


class WatchedServer:
    """A running server; its figures are sums over its process and all that it has started."""

    def __init__(self, port: int, process: Program):
        self.port, self._process = port, process

    def pids(self) -> list[int]:
        """The server's processes."""
        return self._process.pids()

    def memory_mb(self, pids: list[int]) -> float:
        """Resident memory."""
        pages = 0
        for pid in pids:
            with contextlib.suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * _PAGE_BYTES / 1e6

    def files(self) -> int:
        """Open file descriptors."""
        number = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                number += len(os.listdir(f"/proc/{pid}/fd"))
        return number

    def connections(self) -> int:
        """Connections at the server's port that are not wholly closed on the server's side."""
        number = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            is_ours = int(fields[1].rpartition(":")[2], 16) == self.port
            # The inode is 0 once the process has let go of it.
            number += is_ours and fields[3] != _LISTEN and fields[9] != "0"
        return number

    def is_running(self) -> bool:
        """Whether the server's first process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends all of the server's processes at once."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


class MemoryWatch(threading.Thread):
    """Samples the server's memory until it is stopped; kills the server past a limit."""

    def __init__(self, server: WatchedServer, most_growth_mb: float):
        super().__init__(daemon=True)
        self.before_mb = self.most_mb = self.last_mb = server.memory_mb(server.pids())
        self.has_killed = False
        self._server, self._most_growth_mb = server, most_growth_mb
        self._is_over = threading.Event()

    @property
    def growth_mb(self) -> float:
        """The largest growth since the beginning."""
        return self.most_mb - self.before_mb

    def run(self) -> None:
        pids, looked_s = self._server.pids(), time.monotonic()
        while not self._is_over.wait(SAMPLE_S):
            if time.monotonic() - looked_s > 1.0:
                pids, looked_s = self._server.pids(), time.monotonic()
            self.last_mb = self._server.memory_mb(pids)
            self.most_mb = max(self.most_mb, self.last_mb)
            if self.growth_mb > self._most_growth_mb:
                self.has_killed = True
                self._server.kill()
                return

    def stop(self) -> None:
        """Ends the samples."""
        self._is_over.set()
        self.join()


@contextlib.contextmanager
def serving(
    lane: str, models: Path, *options: str, command: Sequence[str] = ("-m", "rlcar.cli", "serve")
) -> Iterator[WatchedServer]:
    """Starts a lane with the registry `models`, waits until it is ready, and stops it at the end.

    `command` is what Python runs, with the options of `rlcar serve`.
    Raises RuntimeError with the end of the server's output if it does not start.
    """
    port = free_port()
    whole = [sys.executable, *command, *LANES[lane], "--port", str(port)]
    whole += ["--registry", str(models), *options]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    with (
        tempfile.TemporaryFile() as output,
        program(whole, env=environment, stdout=output, stderr=output) as process,
    ):
        server = WatchedServer(port, process)
        if not _is_ready(server):
            output.seek(0)
            words = output.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"the lane {lane} does not start: {' '.join(whole)}\n{words}")
        time.sleep(SETTLE_S.get(lane, 0.0))
        yield server


def _is_ready(server: WatchedServer) -> bool:
    """Waits until the server answers; returns False when it ends, or does not answer in time."""
    deadline_s = time.monotonic() + START_S
    url = f"http://127.0.0.1:{server.port}/health/ready"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.is_running() and time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), opener.open(url, timeout=5.0) as answer:
            return bool(answer.status == 200)
        time.sleep(0.1)
    return False
