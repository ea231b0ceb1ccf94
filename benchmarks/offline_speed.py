"""How many updates of CQL in a CPU-second, relative to d3rlpy, and how good are the policies?

    make bench-offline    (installs d3rlpy into .venv-bench-offline, and runs this among others)

Both learn from the data set `classic_narrow` of offline_quality.py with equal networks, batches of
256 transitions, numbers of sampled actions, two critics and the same constants, each on the same
core, by turns. Drawing the batches counts on both sides, and compiling does not. Then both make the
same number of updates of smaller networks, and drive the 64 test tracks. Writes its parts of
benchmarks/results/offline.json.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from header import print_header
from offline_parts import ROOT, WORK, keep
from offline_quality import DATA_SETS, score

from rlcar.sim import SPEC
from rlcar.types import Policy

SIDES = {
    "ours": (sys.executable, str(ROOT / "benchmarks" / "offline_learner.py")),
    "d3rlpy": (
        str(ROOT / ".venv-bench-offline" / "bin" / "python"),
        str(ROOT / "benchmarks" / "peers" / "offline_cql.py"),
    ),
}
ONE_THREAD = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
DATA = "classic_narrow"
WARM_UP = 8  # updates: one compiled call of ours
Figures = dict[str, float]
Details = dict[str, Any]


class Side:
    """A learner in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]"):
        self._process = process
        self.versions = self._answer()

    def learn(self, updates: int) -> float:
        """Makes so many updates; returns their CPU-seconds."""
        return float(self._ask(f"learn {updates}"))

    def actor(self, file: Path) -> dict[str, np.ndarray]:
        """Returns the layers of the actor."""
        self._ask(f"save {file}")
        return dict(np.load(file))

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("= "):  # d3rlpy logs to the same place
                return line[2:].strip()
        sys.exit(f"a learner ended with {self._process.wait()}")


@contextlib.contextmanager
def learners(folder: Path, units: int, samples: int, seed: int) -> Iterator[dict[str, Side]]:
    """Starts both sides on the same core."""
    core = max(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        sides = {}
        for name, command in SIDES.items():
            process = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), *command, str(folder), str(units),
                 str(samples), str(seed)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=os.environ | ONE_THREAD,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            sides[name] = Side(process)
        yield sides


def compare_speed(folder: Path, options: argparse.Namespace) -> tuple[Figures, Details]:
    """Compares updates per CPU-second."""
    rates: dict[str, list[float]] = {name: [] for name in SIDES}
    with learners(folder, options.units, options.samples, options.seed) as sides:
        for side in sides.values():
            side.learn(WARM_UP)
        for _ in range(options.rounds):
            for name, side in sides.items():
                number = options.updates
                rates[name].append(number / side.learn(number))
                print(f"{name}: {rates[name][-1]:.3g} updates/CPU-s", flush=True)
        versions = {name: side.versions for name, side in sides.items()}
    ours, theirs = (statistics.median(rates[name]) for name in SIDES)
    return {
        "cql_updates_over_d3rlpy": ours / theirs,
        "cql_updates_per_cpu_second": ours,
        "d3rlpy_cql_updates_per_cpu_second": theirs,
    }, {"rates": rates, "versions": versions}


def compare_quality(folder: Path, options: argparse.Namespace) -> tuple[Figures, Details]:
    """Compares the laps after the same number of updates of smaller networks."""
    results: dict[str, Any] = {}
    seeds = range(options.seed, options.seed + options.seeds)
    with tempfile.TemporaryDirectory() as parent:
        for seed in seeds:
            with learners(folder, options.small_units, options.small_samples, seed) as sides:
                for name, side in sides.items():
                    side.learn(WARM_UP)
                    cpu_s = side.learn(options.quality_updates - WARM_UP)
                    policy = policy_of(side.actor(Path(parent) / f"{name}-{seed}.npz"))
                    one = score(policy, DATA_SETS[DATA].race) | {"cpu_seconds": cpu_s}
                    results.setdefault(name, []).append(one)
                    print(f"{name}, seed {seed}: {one}", flush=True)

    def mean(name: str, figure: str) -> float:
        return statistics.mean(one[figure] for one in results[name])

    return {
        "small_cql_updates_over_d3rlpy": mean("d3rlpy", "cpu_seconds")
        / mean("ours", "cpu_seconds"),
        "small_cql_lap_rate": mean("ours", "lap_rate"),
        "d3rlpy_small_cql_lap_rate": mean("d3rlpy", "lap_rate"),
        "small_cql_lap_steps": mean("ours", "charged_lap_steps"),
        "d3rlpy_small_cql_lap_steps": mean("d3rlpy", "charged_lap_steps"),
    }, {"quality": results}


def policy_of(layers: dict[str, np.ndarray]) -> Policy:
    """Returns the policy of an actor with two hidden layers, which acts by its mode."""

    def act(
        params: Any, carry: Any, time_step: Any, key: Any, explore: bool
    ) -> tuple[Any, jax.Array]:
        mean, deviation = layers["mean"][None], layers["deviation"][None]
        hidden = (time_step.observation - mean) / deviation
        for index in range(2):
            hidden = jax.nn.relu(hidden @ layers[f"w{index}"] + layers[f"b{index}"][None])
        output = hidden @ layers["w2"] + layers["b2"][None]
        return carry, jnp.tanh(output[:, : SPEC.action_size])

    return Policy(lambda number: None, act)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--part", action="append", choices=list(PARTS), help="may be repeated; default: both"
    )
    parser.add_argument("--units", type=int, default=256, help="of each hidden layer, for speed")
    parser.add_argument("--samples", type=int, default=10, help="actions from each distribution")
    parser.add_argument("--updates", type=int, default=24, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small-units", type=int, default=64, help="the same, for quality")
    parser.add_argument("--small-samples", type=int, default=4)
    parser.add_argument("--quality-updates", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each side, for quality")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    print_header("jax", "numpy")
    load_before = os.getloadavg()[0]
    folder = WORK / DATA / "data"
    if not folder.exists():
        sys.exit(f"{folder} does not exist: run benchmarks/offline_quality.py first")
    for part in options.part or PARTS:
        figures, details = PARTS[part](folder, options)
        keep(part, figures, load_before, {"settings": vars(options)} | details)


PARTS = {"speed": compare_speed, "peer_quality": compare_quality}


if __name__ == "__main__":
    main()
