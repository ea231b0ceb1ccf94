"""Which share of its time does the learner wait for blocks, when there are simulators enough?

    python benchmarks/learner_idle.py [env steps, default 12288]

Trains the nano preset on an embedded Ray with one and with two simulators, and reads what the
learner itself measured between its calls: the mean over the rows that know nothing of the warm-up.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from header import print_header  # noqa: E402
from ray_loop import WARM_UP_ENV_STEPS, measured_rows, ray_rate, undisturbed_config  # noqa: E402

from cluster.training.learner_actor import IDLE_CALLS  # noqa: E402

SIMULATORS = (1, 2)


def main(env_steps: int) -> None:
    config = undisturbed_config("nano", env_steps)
    block = config.training.cars * config.training.block_length
    forgotten = WARM_UP_ENV_STEPS + (IDLE_CALLS + 1) * block
    print_header("jax", "ray")
    with tempfile.TemporaryDirectory() as root:
        for simulators in SIMULATORS:
            folder = Path(root) / str(simulators)
            rate = ray_rate(config, folder, simulators)
            idle = statistics.mean(
                row["learner/idle_share"]
                for row in measured_rows(folder)
                if row["env_steps"] >= forgotten
            )
            load = os.getloadavg()[0]
            print(f"{simulators} simulators: {rate:.1f} env steps/s, load average {load:.1f}")
            print(f"figure learner_idle_share_{simulators}_simulators={idle:.3g}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 12_288)
