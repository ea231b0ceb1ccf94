"""A process `rlcar train` that is started again after each kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rlcar.errors import UserError
from rlcar.storage import checkpoint

_STOP_LIMIT_S = 120.0


class TrainingProcess:
    """Runs `rlcar train` for one run folder; each start continues the run."""

    def __init__(self, folder: Path, arguments: Sequence[str], most_failures: int = 5):
        where = ["--name", folder.name, "--runs", str(folder.parent), "--resume", "auto"]
        self._command = [sys.executable, "-m", "rlcar.cli", "train", *arguments, *where]
        self._most_failures = most_failures
        self.log = folder.parent / f"{folder.name}.chaos.log"
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        self._folder = folder
        self._failures = 0  # not caused by a kill, without a checkpoint between them
        self._is_killed = False
        self._began_env_steps = 0
        self.restarts = -1  # the first start does not count
        self._start()

    @property
    def pid(self) -> int:
        """Process id of the current driver."""
        return self._process.pid

    def restart_if_dead(self) -> None:
        """Starts the driver again if it ended before the training was complete.

        Raises UserError if it fails again and again without being killed.
        """
        code = self._process.poll()
        if code is None or code == 0:
            return
        if self._newest_env_steps() > self._began_env_steps:
            self._failures = 0
        if not self._is_killed:
            self._failures += 1
        if self._failures > self._most_failures:
            raise UserError(
                f"the training failed {self._failures} times without being killed, with exit code "
                f"{code}; its last line: {self.last_line()}"
            )
        self._start()

    def is_done(self) -> bool:
        """Says whether the training is complete."""
        return self._process.poll() == 0

    def kill(self) -> None:
        """Kills the driver without warning, as a power cut would."""
        self._is_killed = True
        self._process.kill()
        self._process.wait()

    def stop(self) -> bool:
        """Asks the driver to save and end; says whether it did."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode in (0, 130)

    def finish(self, limit_s: float) -> bool:
        """Waits until the training is complete, at most `limit_s`; says whether it is."""
        end_s = time.monotonic() + limit_s
        while not self.is_done() and time.monotonic() < end_s:
            self.restart_if_dead()
            time.sleep(0.2)
        return self.is_done()

    def last_line(self) -> str:
        """Returns the last line that the training printed."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"

    def _newest_env_steps(self) -> int:
        newest = checkpoint.latest(self._folder / "checkpoints")
        return newest.env_steps if newest else 0

    def _start(self) -> None:
        self.restarts += 1
        self._is_killed = False
        self._began_env_steps = self._newest_env_steps()
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ)
            )
