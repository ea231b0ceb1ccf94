"""Which share of its time does the learner wait for blocks, when there are simulators enough?

    python benchmarks/learner_idle.py [env steps, default 6144]

Trains the nano preset on an embedded Ray with one and with two simulators, and reads what the
learner itself measured between its calls: the mean over the rows after the warm-up.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from header import print_header  # noqa: E402
from ray_loop import measured_rows, ray_rate, undisturbed_config  # noqa: E402

SIMULATORS = (1, 2)


def main(env_steps: int) -> None:
    config = undisturbed_config("nano", env_steps)
    print_header("jax", "ray")
    with tempfile.TemporaryDirectory() as root:
        for simulators in SIMULATORS:
            folder = Path(root) / str(simulators)
            rate = ray_rate(config, folder, simulators)
            idle = statistics.mean(row["learner/idle_share"] for row in measured_rows(folder))
            load = os.getloadavg()[0]
            print(f"{simulators} simulators: {rate:.1f} env steps/s, load average {load:.1f}")
            print(f"figure learner_idle_share_{simulators}_simulators={idle:.3g}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 6144)
