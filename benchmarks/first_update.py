"""How long from the command until the first train step, with and without a compilation cache?

    python benchmarks/first_update.py

Starts `rlcar train --local` with an empty cache and again with the cache of that run, waits for
the first row of metrics with a train step, and interrupts it. The goals are 30 s and 10 s.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from header import print_header
from timed_start import seconds_until

SETTINGS = ("--set", "training.log_every_s=0.05")


def has_trained(row: dict[str, Any]) -> bool:
    return row["learner/train_steps"] > 0


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_header("jax")
    with tempfile.TemporaryDirectory() as folder:
        cold_s, warm_s = (
            seconds_until(has_trained, Path(folder), name, *SETTINGS) for name in ("cold", "warm")
        )
    print(f"figure cold_first_update_s={cold_s:.3g}")
    print(f"figure warm_first_update_s={warm_s:.3g}")
    print(f"figure cold_over_warm={cold_s / warm_s:.3g}")


if __name__ == "__main__":
    main()
