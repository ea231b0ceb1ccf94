"""The programs of a soak: training, server and page, started again when they end by themselves."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rlcar.errors import UserError
from rlcar.system.process_usage import Usage, measure
from rlcar.system.programs import Program, ending_with_parent, program

STOP_S = 120.0  # a training saves a checkpoint before it ends
_MOST_RESTARTS = 5


def rlcar_command(*arguments: str) -> list[str]:
    """Returns a command of rlcar, in the Python of this process, that ends with this process."""
    return ending_with_parent([sys.executable, "-m", "rlcar.cli", *arguments])


class Service:
    """A program that is started again, and counted, when it ends by itself."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path):
        self.name, self.restarts = name, 0
        self.log = folder / "logs" / f"{name}.log"
        self._command = rlcar_command(*arguments)
        self._stack = contextlib.ExitStack()
        self._process: Program | None = None
        # Folder of the program's Ray, empty for a program without Ray. The Unix sockets of Ray
        # allow 107 bytes of path, so its files cannot lie in any folder.
        self.temporary_folder = Path(tempfile.mkdtemp(prefix="rl", dir="/tmp"))
        self._environment = os.environ | {"RAY_TMPDIR": str(self.temporary_folder)}

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        shutil.rmtree(self.temporary_folder, ignore_errors=True)

    def usage(self) -> Usage:
        """Measures the program and everything that it started."""
        return measure(self._process.pids() if self._process else ())

    def is_running(self) -> bool:
        """Says whether the program itself runs."""
        return self._process is not None and self._process.poll() is None

    def start_again_if_ended(self) -> None:
        """Starts the program again if it has ended.

        Raises UserError if that has happened too often.
        """
        if self.is_running():
            return
        if self.restarts >= _MOST_RESTARTS:
            raise UserError(f"{self.name} ended {self.restarts + 1} times: see {self.log}")
        self.restarts += 1
        self._stack.close()
        self._start()

    def last_line(self) -> str:
        """Returns the last line that the program printed."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"

    def _start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        output = self._stack.enter_context(self.log.open("ab"))
        self._process = self._stack.enter_context(
            program(
                self._command,
                within_s=STOP_S,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        )
