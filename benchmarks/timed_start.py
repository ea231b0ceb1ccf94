"""Measures the time from the start of `rlcar train --local` until a condition on its metrics."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import program

from rlcar.runs.metrics_file import read_metrics

COMMAND = [sys.executable, "-m", "rlcar.cli", "train", "--local"]
LIMIT_S = 300.0


def seconds_until(
    is_there: Callable[[dict[str, Any]], bool],
    root: Path,
    name: str,
    *arguments: str,
    limit_s: float = LIMIT_S,
) -> float:
    """Starts a training below `root`, with the compile cache there, and interrupts it in the end.

    Imports, compiling and the first env steps are in the time.
    """
    metrics = root / "runs" / name / "metrics.jsonl"
    started = time.perf_counter()
    with (
        (root / f"{name}.log").open("w") as log,
        program(
            [*COMMAND, *arguments, "--name", name, "--runs", str(root / "runs")],
            stop=signal.SIGINT,  # what was compiled is kept
            env=os.environ | {"XDG_CACHE_HOME": str(root / "cache"), "JAX_PLATFORMS": "cpu"},
            stdout=log,
            stderr=log,
        ) as run,
    ):
        while time.perf_counter() - started < limit_s and run.poll() is None:
            if any(map(is_there, read_metrics(metrics))):
                return time.perf_counter() - started
            time.sleep(0.05)
    raise SystemExit(f"it ended, or took {limit_s} s:\n{(root / f'{name}.log').read_text()}")
