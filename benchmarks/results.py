"""How do the algorithms compare, by env steps and by seconds, on both worlds?

    python benchmarks/results.py classic                # trains, then writes docs/results.json
    python benchmarks/results.py grand-prix --at-once 2
    python benchmarks/results.py render                 # docs/results.md and its curves

Each training is its own process, is skipped where its figures are in runs/results already, and
continues from its checkpoint where it was stopped. The other commands call `train`, which makes one
training.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from results_page import draw, markdown, runs_of

from rlcar.system.durable import replace_text

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "results"
RESULTS = ROOT / "docs" / "results.json"
# Name in the table -> preset and the settings that differ from it.
Settings = tuple[str, list[str]]
CLASSIC: dict[str, Settings] = {
    "dreamer": ("nano", []),
    **{name: (name, []) for name in ("sac", "td3", "ppo", "fused-ppo", "fast-laps")},
}
CLASSIC_ENV_STEPS = {
    "dreamer": 12_288,
    "sac": 8_192,
    "td3": 16_384,
    "ppo": 49_152,
    "fused-ppo": 2_000_000,
    "fast-laps": 10_000_000,
}
# Env steps between two evaluations on the validation tracks, where it is not 512.
CLASSIC_EVERY = {
    "ppo": 2048,
    "fused-ppo": 16_384,
    "fast-laps": 200_000,
}
# All with the horizon of 333 steps: with a discount of 0.99 the others do worse (experiments.md).
GRAND_PRIX: dict[str, Settings] = {
    "dreamer": ("nano-grand-prix", []),
    "dreamer-without-memory": ("nano-grand-prix", ["dreamer.world_model.has_memory=false"]),
    "sac": ("sac", ["sac.discount=0.997"]),
    "ppo": ("ppo", ["ppo.discount=0.997"]),
    "recurrent-ppo": ("recurrent-ppo", ["ppo.discount=0.997"]),
    "fused-ppo": ("fused-ppo", ["ppo.discount=0.997"]),
    "fused-recurrent-ppo": ("fused-ppo", ["ppo.discount=0.997", "ppo.recurrent_units=64"]),
}
GRAND_PRIX_ENV_STEPS = (30_000, 100_000, 1_000_000)
# A million env steps with as many train steps for each would take these many hours on two cores:
# they have runs of their own for it, SAC with one for each step of its eight cars.
GRAND_PRIX_LONG = {
    "dreamer": "replay.samples_per_insert=4",
    "dreamer-without-memory": "replay.samples_per_insert=4",
    "sac": "replay.samples_per_insert=64",
}


def train_one(options: argparse.Namespace) -> None:
    """Trains up to each number of env steps, drives the test tracks, and writes the figures."""
    import numpy as np
    from header import machine

    from rlcar.agents import make_agent
    from rlcar.config import make_config
    from rlcar.evaluation.laps import TIME_LIMIT_STEPS, drive
    from rlcar.evaluation.run_report import load_policy
    from rlcar.runs.metrics_file import read_metrics
    from rlcar.sim import SPEC
    from rlcar.storage import checkpoint
    from rlcar.track import TRACK_SETS, make_tracks
    from rlcar.track.bound import lap_time_bound_steps
    from rlcar.training.loop import train

    folder = RUNS / f"{options.world}-{options.folder or options.name}-{options.seed}"
    for until in options.until:
        overrides = [*options.set, f"training.env_steps={until}"]
        config = make_config(
            options.preset, overrides=overrides, world=options.world, seed=options.seed
        )
        if not (folder / f"at-{until}.json").exists():
            outcome = train(config, folder, checkpoint.latest(folder / "checkpoints"))
            if outcome.interrupted:
                sys.exit(130)
            agent = make_agent(config, SPEC)
            _, params = load_policy(folder, folder, agent, config.seed)
            laps = drive(agent.policy, params, config.race, "test")
            tracks = make_tracks(TRACK_SETS["test"], config.race.track)
            top_speed = config.race.vehicle.top_speed_px_per_step
            bound_steps = lap_time_bound_steps(tracks, top_speed)
            is_lap = laps.lap_time_steps > 0
            charged = np.where(is_lap, laps.lap_time_steps, TIME_LIMIT_STEPS)
            row = {
                "world": options.world,
                "name": options.name,
                "preset": options.preset,
                "settings": options.set,
                "env_steps_asked": until,
                "lap_rate": float(is_lap.mean()),
                "over_bound_pct": (100 * (charged / bound_steps - 1)).round(2).tolist(),
                "lapped_over_bound_pct": _mean(100 * (charged / bound_steps - 1)[is_lap]),
                "curve": [
                    [row["env_steps"], row["run/train_seconds"], row["evaluation/lap_rate"]]
                    for row in read_metrics(folder / "metrics.jsonl")
                    if "evaluation/lap_rate" in row
                ],
                **outcome.summary,
                "machine": machine(),
                **checkpoint.provenance(options.seed),
            }
            _write(folder / f"at-{until}.json", row)


def _mean(values: Any) -> float | None:
    return round(float(values.mean()), 2) if len(values) else None


class Wanted(NamedTuple):
    """The trainings of one row, one for each seed."""

    name: str  # of the row
    preset: str
    overrides: list[str]
    until: list[int]  # env steps


def run_all(world: str, wanted: dict[str, Wanted], seeds: int, at_once: int) -> None:
    """Starts every missing training, so many at a time; the key names its folder."""
    from rich.progress import Progress

    jobs = [(key, seed) for seed in range(seeds) for key in wanted]

    def start(job: tuple[str, int]) -> None:
        key, seed = job
        name, preset, overrides, until = wanted[key]
        command = [sys.executable, __file__, "train", "--world", world, "--name", name]
        command += ["--preset", preset, "--seed", str(seed), "--until", *map(str, until)]
        command += [word for override in overrides for word in ("--set", override)]
        command += ["--folder", key]
        log = RUNS / f"{world}-{key}-{seed}.log"
        with log.open("w") as out:
            done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            sys.exit(f"{key} with seed {seed} failed: see {log}")

    RUNS.mkdir(parents=True, exist_ok=True)
    with Progress() as progress, ThreadPoolExecutor(at_once) as pool:
        task = progress.add_task(world, total=len(jobs))
        for _ in pool.map(start, jobs):
            progress.advance(task)


def _grand_prix(most: int) -> dict[str, Wanted]:
    longest = max(GRAND_PRIX_ENV_STEPS)
    wanted = {}
    for name, (preset, overrides) in GRAND_PRIX.items():
        until = [n for n in GRAND_PRIX_ENV_STEPS if n <= most]
        if name in GRAND_PRIX_LONG and longest in until:
            until.remove(longest)
            seldom = [GRAND_PRIX_LONG[name], "training.evaluate_every_env_steps=32768"]
            wanted[f"{name}-long"] = Wanted(name, preset, [*overrides, *seldom], [longest])
        often = [*overrides, "training.evaluate_every_env_steps=4096"]
        wanted[name] = Wanted(name, preset, often, until)
    return wanted


def _chosen(wanted: dict[str, Any], only: list[str] | None) -> dict[str, Any]:
    unknown = sorted({*(only or [])} - {*wanted})
    if unknown:
        sys.exit(f"no row is called {', '.join(unknown)}: there are {', '.join(wanted)}")
    return {name: wanted[name] for name in only or wanted}


def gather(table: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Computes one table, "classic" or "grand_prix", from the figures of its trainings."""
    import numpy as np

    from rlcar.evaluation.statistics import bootstrap_interquartile_mean

    cells: dict[str, Any] = {}
    for run in runs:
        key = (run["name"],) if table == "classic" else (str(run["env_steps_asked"]), run["name"])
        place = cells
        for part in key:
            place = place.setdefault(part, {})
        place.setdefault("runs", []).append(run)

    def finish(cell: dict[str, Any]) -> None:
        rows = cell["runs"]
        scores = np.array([row["over_bound_pct"] for row in rows])
        estimate = bootstrap_interquartile_mean(scores)
        cell["seeds"] = len(rows)
        cell["env_steps"] = max(row["env_steps"] for row in rows)
        cell["lap_rate"] = round(float(np.mean([row["lap_rate"] for row in rows])), 4)
        cell["score_over_bound_pct"] = {
            "iqm": round(estimate.mean, 2),
            "iqm_low": round(estimate.low, 2),
            "iqm_high": round(estimate.high, 2),
        }
        for name in ("env_steps_to_90", "seconds_to_90"):
            values = [row[name] for row in rows]
            found = [value for value in values if value is not None]
            cell[f"{name}_runs"] = len(found)
            cell[name] = float(np.median(found)) if len(found) == len(rows) else None

    for cell in cells.values():
        for one in [cell] if "runs" in cell else cell.values():
            finish(one)
    return cells


def render() -> None:
    """Writes docs/results.md and its picture from docs/results.json only."""
    results = json.loads(RESULTS.read_text())
    # Recomputed, so that a corrected statistic also reaches the page.
    results = {table: gather(table, list(runs_of(cells))) for table, cells in results.items()}
    _write(RESULTS, results)
    draw(results, RESULTS.parent / "images" / "results.png")
    (RESULTS.parent / "results.md").write_text(markdown(results))


def _write(path: Path, content: Any) -> None:
    replace_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _update(world: str) -> None:
    """Adds the figures in runs/results to the committed ones; they replace older ones."""
    table = "classic" if world == "classic" else "grand_prix"
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found = [json.loads(path.read_text()) for path in sorted(RUNS.glob(f"{world}-*/at-*.json"))]
    runs = {
        (run["env_steps_asked"], run["preset"], run["name"], run["seed"]): run
        for run in [*runs_of(results.get(table, {})), *found]
    }
    merged = [runs[key] for key in sorted(runs)]
    _write(RESULTS, {**results, table: gather(table, merged)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("train")
    one.add_argument("--world", required=True)
    one.add_argument("--name", required=True)
    one.add_argument("--preset", required=True)
    one.add_argument("--seed", type=int, required=True)
    one.add_argument("--until", type=int, nargs="+", required=True)
    one.add_argument("--set", action="append", default=[])
    one.add_argument(
        "--folder", default=None, help="folder below runs/results; by default the name of the row"
    )
    for world, seeds in (("classic", 5), ("grand-prix", 3)):
        verb = verbs.add_parser(world)
        verb.add_argument("--seeds", type=int, default=seeds)
        verb.add_argument(
            "--at-once", type=int, default=1, help="number of trainings that run at the same time"
        )
        verb.add_argument(
            "--only", nargs="+", default=None, help="names of the rows to train; by default all"
        )
        verb.add_argument(
            "--most", type=int, default=None, help="largest number of env steps of a training"
        )
    verbs.add_parser("render")
    options = parser.parse_args()
    if options.verb == "train":
        return train_one(options)
    if options.verb == "classic":
        wanted = {
            name: Wanted(
                name,
                preset,
                [*overrides, f"training.evaluate_every_env_steps={CLASSIC_EVERY.get(name, 512)}"],
                [CLASSIC_ENV_STEPS[name]],
            )
            for name, (preset, overrides) in CLASSIC.items()
        }
        run_all("classic", _chosen(wanted, options.only), options.seeds, options.at_once)
    elif options.verb == "grand-prix":
        wanted = _grand_prix(options.most or max(GRAND_PRIX_ENV_STEPS))
        run_all("grand-prix", _chosen(wanted, options.only), options.seeds, options.at_once)
    if options.verb != "render":
        _update(options.verb)
    return render()


if __name__ == "__main__":
    main()
