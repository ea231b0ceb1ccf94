"""Does a training with a hundred kills end with a policy as good as one without?

    python benchmarks/chaos.py [--kills 100] [--env-steps 196608] [--preset nano]

Trains twice on an embedded Ray with the same seed and env steps: once with kills spread at random
over the whole training (simulators by SIGKILL and SIGSTOP, the learner and the driver by SIGKILL,
each as often), once undisturbed. Both policies, the best and the last, then drive the test tracks;
intervals are Wilson's, 95 %. What Ray costs against the local loop is measured by `ray_loop.py`.
Writes benchmarks/results/chaos.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import ray  # noqa: E402
from header import origin, print_header  # noqa: E402
from scipy.stats import binomtest  # noqa: E402

from cluster.chaos.kills import KINDS, KillPlan  # noqa: E402
from cluster.chaos.report import write_report  # noqa: E402
from cluster.chaos.run import against_own_training  # noqa: E402
from cluster.chaos.training_process import TrainingProcess  # noqa: E402
from cluster.config import ClusterConfig  # noqa: E402
from cluster.runtime import ray_runtime  # noqa: E402
from rlcar.agents import make_agent  # noqa: E402
from rlcar.config import load_config  # noqa: E402
from rlcar.evaluation.laps import drive  # noqa: E402
from rlcar.evaluation.run_report import load_policy  # noqa: E402
from rlcar.runs.metrics_file import read_metrics  # noqa: E402
from rlcar.sim import SPEC  # noqa: E402
from rlcar.storage import checkpoint  # noqa: E402

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "chaos.json"
WINDOW_S = 3.0


def train_arguments(options: argparse.Namespace) -> list[str]:
    """Returns the arguments of both trainings."""
    settings = [
        f"training.env_steps={options.env_steps}",
        "training.checkpoint_every_s=2",
        "training.log_every_s=0.2",
        f"training.evaluate_every_env_steps={max(1024, options.env_steps // 24)}",
    ]
    words = ["--preset", options.preset, "--mode", options.mode, "--seed", "0"]
    words += ["--simulators", str(options.simulators)]
    words += ["--cluster", f"simulator_deadline_s={options.simulator_deadline_s}"]
    return words + [word for setting in settings for word in ("--set", setting)]


def undisturbed(cluster: ClusterConfig, folder: Path, arguments: list[str]) -> float:
    """Trains in the same way without kills; returns the seconds it took."""
    began_s = time.monotonic()
    with ray_runtime(cluster):
        address = ray.get_runtime_context().gcs_address
        training = TrainingProcess(folder, [*arguments, "--address", address], most_failures=0)
        if not training.finish(limit_s=4 * 3600):
            sys.exit(f"the undisturbed training did not end: {training.last_line()}")
    return time.monotonic() - began_s


def quality(folder: Path) -> dict[str, Any]:
    """Drives the test tracks with a run's best policy and with its last one."""
    config = load_config(folder / "config.json")
    agent = make_agent(config, SPEC)
    newest = checkpoint.latest(folder / "checkpoints")
    assert newest is not None
    found: dict[str, Any] = {"env_steps": newest.env_steps, **newest_counters(folder)}
    for name, path in (("best", folder), ("last", newest.path)):
        _, params = load_policy(folder, path, agent, config.seed)
        lapped = drive(agent.policy, params, config.race, "test").lap_time_steps > 0
        interval = binomtest(int(lapped.sum()), lapped.size).proportion_ci(0.95, method="wilson")
        found[f"{name}_lap_rate"] = round(float(lapped.mean()), 4)
        found[f"{name}_lap_rate_interval"] = [round(interval.low, 4), round(interval.high, 4)]
    return found


def newest_counters(folder: Path) -> dict[str, Any]:
    """Returns the train steps at the end; their ratio to env steps must not depend on kills."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "learner/train_steps" in row]
    return {"train_steps": int(rows[-1]["learner/train_steps"])}


def ray_over_local(env_steps: int) -> float:
    """Returns the figure of `ray_loop.py`, measured in a separate process."""
    command = [sys.executable, str(HERE / "ray_loop.py"), str(env_steps)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(said.strip())
    found = re.search(r"^figure ray_over_local_env_steps_per_s=(\S+)$", said, re.MULTILINE)
    assert found is not None, said
    return float(found[1])


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Returns the content of the result file: the ratio of `ray_loop.py`, and both trainings."""
    ratio = ray_over_local(options.loop_env_steps)
    cluster = ClusterConfig(simulators=options.simulators)
    arguments = train_arguments(options)
    plan = KillPlan(
        options.kills, None, tuple(KINDS), until_env_steps=options.env_steps, recovery_limit_s=300.0
    )
    load_before = os.getloadavg()[0]
    report = against_own_training(
        plan,
        cluster,
        root / "killed",
        arguments,
        window_s=WINDOW_S,
        say=lambda text: print(text, flush=True),
    )
    seconds = undisturbed(cluster, root / "undisturbed", arguments)
    made = origin(load_before)
    killed, alone = quality(root / "killed"), quality(root / "undisturbed")
    low, high = alone["best_lap_rate_interval"]
    return {
        **report,
        "ray_over_local": ratio,
        "lap_rate": killed["best_lap_rate"],
        "lap_rate_undisturbed": alone["best_lap_rate"],
        "lap_rate_within_interval": low <= killed["best_lap_rate"] <= high,
        "killed": killed,
        "undisturbed": {**alone, "seconds": round(seconds, 1)},
        "preset": options.preset,
        "mode": options.mode,
        "simulators": options.simulators,
        **made,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--env-steps", type=int, default=196_608)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--mode", default="standard")
    parser.add_argument("--simulators", type=int, default=2)
    parser.add_argument("--simulator-deadline-s", type=float, default=5.0)
    parser.add_argument("--loop-env-steps", type=int, default=6144)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    print_header("jax", "ray")
    with tempfile.TemporaryDirectory() as root:
        result = measure(options, Path(root))
    write_report(options.out, result)
    print(json.dumps({name: result[name] for name in ("by_kind", "killed", "undisturbed")}))
    for name in ("kills", "completed", "checkpoints_lost", "env_steps_lost", "ray_over_local"):
        print(f"figure chaos_{name}={result[name]}")
    print(f"figure chaos_lap_rate={result['lap_rate']}")
    print(f"figure chaos_lap_rate_undisturbed={result['lap_rate_undisturbed']}")


if __name__ == "__main__":
    main()
