"""How long from the command until a policy laps 90 % of unseen classic tracks, beside SAC's?

    python benchmarks/first_laps.py

Starts `rlcar train --local` for each seed, waits for the first evaluation in which the policy laps
90 % of the 64 validation tracks, and interrupts it. The first run of each case compiles. The others
use its compilation cache, as every training on a machine after the first one does. The goal is 30
s.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from header import print_header
from timed_start import seconds_until

SEEDS = range(5)
LOOKS = ("--set", "training.evaluate_every_env_steps=512")
CASES = {
    "dreamer": ("--algorithm", "dreamer"),
    "dreamer_bfloat16": ("--algorithm", "dreamer", "--set", "dreamer.precision=bfloat16"),
    "sac": ("--algorithm", "sac"),
}


def laps_90(row: dict[str, Any]) -> bool:
    return row.get("evaluation/lap_rate", 0.0) >= 0.9


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_header("jax")
    warm_s: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in CASES.items():
            root = Path(folder) / name  # with an empty compilation cache
            root.mkdir()
            taken_s = [
                seconds_until(
                    laps_90,
                    root,
                    f"{name}-{number}",
                    *(*options, "--seed", str(seed), *LOOKS),
                )
                for number, seed in enumerate([SEEDS[0], *SEEDS])
            ]
            warm_s[name] = statistics.median(taken_s[1:])
            print(f"figure {name}_cold_s={taken_s[0]:.3g}")
            print(f"figure {name}_warm_s={warm_s[name]:.3g}")
            print(f"figure {name}_warm_slowest_s={max(taken_s[1:]):.3g}", flush=True)
    print(f"figure dreamer_over_sac={warm_s['dreamer'] / warm_s['sac']:.3g}")


if __name__ == "__main__":
    main()
