"""Does the loop on Ray reach 0.95 of the local loop's env steps per second on the same cores?

    python benchmarks/ray_loop.py [env steps, default 6144, at least 4096]

Both train the nano preset from scratch, in turn, with all cores of this process to share: local,
Ray with one simulator, and so on. The clock starts at the first row after 2048 env steps, when
everything is compiled, and stops at the last row.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from header import print_header  # noqa: E402

from cluster.config import ClusterConfig  # noqa: E402
from cluster.training.loop import train as train_on_ray  # noqa: E402
from rlcar.config import Config, make_config  # noqa: E402
from rlcar.runs.metrics_file import read_metrics  # noqa: E402
from rlcar.training.loop import train as train_locally  # noqa: E402

PAIRS = 3
WARM_UP_ENV_STEPS, WARM_UP_TRAIN_STEPS = 2048, 16


def measured_rows(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of training after the warm-up: everything is compiled and has run."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "learner/train_steps" in row]
    return [
        row
        for row in rows
        if row["env_steps"] > WARM_UP_ENV_STEPS
        and row["learner/train_steps"] >= WARM_UP_TRAIN_STEPS
    ]


def rate(folder: Path) -> float:
    """Returns env steps per second of training after the warm-up."""
    rows = measured_rows(folder)
    seconds = rows[-1]["run/train_seconds"] - rows[0]["run/train_seconds"]
    return (rows[-1]["env_steps"] - rows[0]["env_steps"]) / seconds


def local_rate(config: Config, folder: Path) -> float:
    """Trains in this process."""
    train_locally(config, folder)
    return rate(folder)


def ray_rate(config: Config, folder: Path, simulators: int = 1) -> float:
    """Trains on an embedded Ray."""
    train_on_ray(config, ClusterConfig(simulators=simulators), folder)
    return rate(folder)


def undisturbed_config(preset: str, env_steps: int) -> Config:
    """Returns the settings of a training without evaluations."""
    never = f"training.evaluate_every_env_steps={100 * env_steps}"
    overrides = [f"training.env_steps={env_steps}", never, "training.log_every_s=0.2"]
    return make_config(preset, overrides=overrides)


def main(env_steps: int) -> None:
    config = undisturbed_config("nano", env_steps)
    print_header("jax", "ray")
    pairs = []
    with tempfile.TemporaryDirectory() as root:
        for pair in range(PAIRS):
            local = local_rate(config, Path(root) / f"local{pair}")
            on_ray = ray_rate(config, Path(root) / f"ray{pair}")
            pairs.append((local, on_ray))
            print(
                f"pair {pair}: local {local:.1f}, Ray {on_ray:.1f} env steps/s, "
                f"ratio {on_ray / local:.2f}, load average {os.getloadavg()[0]:.1f}"
            )
    local, on_ray = (statistics.mean(rates) for rates in zip(*pairs, strict=True))
    print(f"figure local_env_steps_per_s={local:.4g}")
    print(f"figure ray_env_steps_per_s={on_ray:.4g}")
    print(f"figure ray_over_local_env_steps_per_s={on_ray / local:.3g}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 6144)
