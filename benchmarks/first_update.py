"""How long from the command until the first train step, with and without what JAX kept compiled?

    python benchmarks/first_update.py

Starts `rlcar train --local` with an empty cache and again with what that run left in it, waits for
the first row of metrics with a train step, and interrupts it. The goals are 30 s and 10 s.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from header import print_header

COMMAND = [sys.executable, "-m", "rlcar.cli", "train", "--local", "--set"]
SETTINGS = "training.log_every_s=0.05"
LIMIT_S = 300.0


def seconds_to_first_update(root: Path, name: str) -> float:
    """From the start of the process; imports, compiling and the first env steps are in it."""
    metrics = root / "runs" / name / "metrics.jsonl"
    started = time.perf_counter()
    with (root / f"{name}.log").open("w") as log:
        run = subprocess.Popen(
            [*COMMAND, SETTINGS, "--name", name, "--runs", str(root / "runs")],
            env=os.environ | {"XDG_CACHE_HOME": str(root / "cache"), "JAX_PLATFORMS": "cpu"},
            stdout=log,
            stderr=log,
        )
    try:
        while time.perf_counter() - started < LIMIT_S and run.poll() is None:
            if metrics.exists() and any(map(has_trained, metrics.read_text().splitlines())):
                return time.perf_counter() - started
            time.sleep(0.05)
    finally:
        run.send_signal(signal.SIGINT)  # what was compiled is kept
        run.wait()
    raise SystemExit(f"no train step within {LIMIT_S} s:\n{(root / f'{name}.log').read_text()}")


def has_trained(line: str) -> bool:
    """False also for the beginning of a row that is still being written."""
    return line.endswith("}") and json.loads(line)["learner/train_steps"] > 0


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_header("jax")
    with tempfile.TemporaryDirectory() as folder:
        cold_s, warm_s = (seconds_to_first_update(Path(folder), name) for name in ("cold", "warm"))
    print(f"figure cold_first_update_s={cold_s:.3g}")
    print(f"figure warm_first_update_s={warm_s:.3g}")
    print(f"figure cold_over_warm={cold_s / warm_s:.3g}")


if __name__ == "__main__":
    main()
