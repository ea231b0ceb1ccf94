"""How long until a training is back at full rate after each kind of failure?

    python benchmarks/recovery.py [--kills 12] [--preset nano]

Trains on an embedded Ray with two simulators and kills its parts in random order, each kind as
often, always from full rate. Full rate is four fifths of the undisturbed median over three seconds,
with every simulator delivering. Hung simulators (SIGSTOP) are noticed by a deadline of 10 s, which
is part of their time.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from header import print_header  # noqa: E402

from cluster.chaos.kills import KINDS, KillPlan  # noqa: E402
from cluster.chaos.run import against_own_training  # noqa: E402
from cluster.config import ClusterConfig  # noqa: E402

SIMULATORS = 2
TRAINING = [
    *("--simulators", str(SIMULATORS), "--cluster", "simulator_deadline_s=10"),
    *("--set", "training.env_steps=100000000", "--set", "training.checkpoint_every_s=5"),
    *("--set", "training.evaluate_every_env_steps=100000000"),
    *("--set", "training.log_every_s=0.2"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--preset", default="nano")
    options = parser.parse_args()
    print_header("jax", "ray")
    with tempfile.TemporaryDirectory() as root:
        report = against_own_training(
            KillPlan(options.kills, None, tuple(KINDS)),
            ClusterConfig(simulators=SIMULATORS),
            Path(root) / "run",
            ["--preset", options.preset, *TRAINING],
            window_s=3.0,
            say=lambda text: print(text, flush=True),
        )
    print(f"load average {os.getloadavg()[0]:.1f}")
    for kind, sums in report["by_kind"].items():
        print(f"figure recovery_{kind}_s={sums['recovery_median_s']}")
        print(f"figure recovery_{kind}_worst_s={sums['recovery_worst_s']}")
        print(f"figure recovery_{kind}_env_steps_lost={sums['env_steps_lost'] / sums['kills']:.4g}")


if __name__ == "__main__":
    main()
