"""Does the switch from recorded data to driving lower the lap rate?

    python benchmarks/fine_tuning.py [--algorithm cql --algorithm iql] [--seeds 3]

Trains on the data set `classic_narrow` of offline_quality.py with its settings, and lets each
training go on by driving with the settings of `rlcar train --from`. Every 2,048 env steps the
policy drives the 64 validation tracks; a lap that fails costs 1,000 steps. Data and runs stay in
runs/fine-tuning, and a repetition continues there. The results cover all complete runs in that
folder, each with the commit at which it began. Writes benchmarks/results/fine_tuning.json and
fine_tuning.png.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from header import origin, print_header
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from offline_data import record_drivers
from offline_quality import DATA_SETS, configs_for

from rlcar.config import Config
from rlcar.devices import compile_cache
from rlcar.evaluation.pictures import save_figure
from rlcar.offline.fine_tuning import continued_config
from rlcar.runs.metrics_file import read_metrics
from rlcar.storage import checkpoint
from rlcar.system.durable import replace_text
from rlcar.training.loop import train

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "runs" / "fine-tuning"
DATA = DATA_SETS["classic_narrow"]
EARLY_ENV_STEPS = 10_240  # in which the known drop would show
EVALUATE_EVERY = 2048

COLOURS = {"cql": "#2563a8", "iql": "#2f8f4e", "dreamer": "#e8a33d"}


class Point(NamedTuple):
    """One evaluation."""

    env_steps: int
    lap_rate: float
    charged_lap_steps: float


def finish(config: Config, folder: Path) -> None:
    """Trains, or goes on with an interrupted training; ends the program if it is stopped."""
    save = checkpoint.latest(folder / "checkpoints")
    if save is not None and save.env_steps >= config.training.env_steps:
        return
    if train(config, folder, save).interrupted:
        raise SystemExit(f"stopped; the same command continues in {folder}")


def run(algorithm: str, seed: int, env_steps: int) -> None:
    """Trains one policy on the data, and then by driving."""
    offline, online = folders(algorithm, seed)
    finish(configs_for(DATA, WORK / "data", [algorithm], seed)[algorithm], offline)
    overrides = [
        f"training.env_steps={env_steps}",
        f"training.evaluate_every_env_steps={EVALUATE_EVERY}",
    ]
    finish(continued_config(offline, overrides, seed), online)


def folders(algorithm: str, seed: int) -> tuple[Path, Path]:
    """Returns the folders of both halves of a training."""
    return WORK / f"{algorithm}-{seed}-recorded", WORK / f"{algorithm}-{seed}-driving"


def curve(folder: Path) -> list[Point]:
    """Returns the evaluations of a run."""
    return [
        Point(row["env_steps"], row["evaluation/lap_rate"], row["evaluation/charged_lap_steps"])
        for row in read_metrics(folder / "metrics.jsonl")
        if "evaluation/lap_rate" in row and "episode/reward" not in row
    ]


def begun(folder: Path) -> dict[str, Any]:
    """Returns the commit, the versions and the time with which a run began."""
    return dict(json.loads((folder / "run.json").read_text()))


def complete_runs(env_steps: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the curves of all seeds whose training is complete, by algorithm."""
    found: dict[str, list[dict[str, Any]]] = {}
    for algorithm in COLOURS:
        for offline in sorted(WORK.glob(f"{algorithm}-*-recorded")):
            seed = int(offline.name.split("-")[1])
            online = folders(algorithm, seed)[1]
            save = checkpoint.latest(online / "checkpoints")
            if save is not None and save.env_steps >= env_steps:
                of_seed = {
                    "seed": seed,
                    "origin": {"recorded": begun(offline), "driving": begun(online)},
                    "recorded": curve(offline),
                    "driving": curve(online),
                }
                found.setdefault(algorithm, []).append(of_seed)
    return found


def figures_of(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Returns means over the seeds, and the lowest lap rate of any seed soon after the switch."""
    first, last = ([each["driving"][i] for each in runs] for i in (0, -1))
    early = [p for each in runs for p in each["driving"] if 0 < p.env_steps <= EARLY_ENV_STEPS]
    driven = [p for each in runs for p in each["driving"]]
    return {
        "seeds": len(runs),
        "lap_rate_before": float(np.mean([p.lap_rate for p in first])),
        "lowest_in_first_10000": min(p.lap_rate for p in early),
        "lowest": min(p.lap_rate for p in driven),
        "lap_rate_after": float(np.mean([p.lap_rate for p in last])),
        "charged_lap_steps_before": float(np.mean([p.charged_lap_steps for p in first])),
        "charged_lap_steps_after": float(np.mean([p.charged_lap_steps for p in last])),
    }


def draw(path: Path, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Draws lap rate and lap time, on the left from recorded data and on the right by driving."""
    figure = Figure(figsize=(10.0, 6.0), dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(2, 2, sharex="col", sharey="row", width_ratios=[1.0, 2.0])
    for algorithm, of_seeds in runs.items():
        for index, curves in enumerate(of_seeds):
            label = algorithm if index == 0 else None
            total = curves["recorded"][-1].env_steps
            _draw_curve(axes[:, 0], curves["recorded"], 100.0 / total, COLOURS[algorithm], None)
            _draw_curve(axes[:, 1], curves["driving"], 1.0, COLOURS[algorithm], label)
    axes[0, 0].set(ylabel="validation tracks lapped [%]", ylim=(-4.0, 104.0))
    axes[1, 0].set(ylabel="steps of a lap (no lap: 1,000)", xlabel="recorded data: training [%]")
    axes[1, 1].set(xlabel="driving: env steps")
    axes[0, 1].legend(frameon=False, loc="lower right")
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#eceff2")
    save_figure(figure, path)


def _draw_curve(
    axes: np.ndarray, points: list[Point], scale: float, colour: str, label: str | None
) -> None:
    env_steps = [scale * point.env_steps for point in points]
    lines = ([100.0 * p.lap_rate for p in points], [p.charged_lap_steps for p in points])
    each: Axes
    for each, values in zip(axes, lines, strict=True):
        each.plot(env_steps, values, color=colour, label=label, linewidth=1.4, marker="o", ms=2.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--algorithm", action="append", choices=list(COLOURS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--env-steps", type=int, default=20_480, help="driven after the switch")
    options = parser.parse_args()
    print_header("jax", "numpy")
    load_before = os.getloadavg()[0]
    compile_cache.prepare_jax()
    if not (WORK / "data").exists():
        record_drivers(WORK / "data", DATA.race, DATA.drivers, DATA.transitions, 0)
    for algorithm in options.algorithm or COLOURS:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            run(algorithm, seed, options.env_steps)
    runs = complete_runs(options.env_steps)
    report: dict[str, Any] = {
        "figures": {
            f"{algorithm}_{name}": value
            for algorithm, of_seeds in runs.items()
            for name, value in figures_of(of_seeds).items()
        },
        "origin": origin(load_before),
        "columns": Point._fields,
        "curves": runs,
    }
    for name, value in report["figures"].items():
        print(f"figure {name}={value:.6g}")
    replace_text(RESULTS / "fine_tuning.json", json.dumps(report, indent=1) + "\n")
    draw(RESULTS / "fine_tuning.png", runs)


if __name__ == "__main__":
    main()
