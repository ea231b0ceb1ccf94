"""Does `rlcar offline` keep the candidate that is the best one on tracks that no choice has seen?

    python benchmarks/offline_choice.py [--number 20] [--estimates 20]

Twenty data sets of the classic world on narrow roads, drawn from their seeds: two or three drivers
with random shares, amounts and persistence of error, and 30,000 to 90,000 transitions. In each the
candidates `bc`, `cql` and `iql` learn from 80 % of the episodes. The choice by simulation on the
validation tracks is compared with the cost of each candidate on the 64 test tracks.

A choice is right if its mean cost on the test tracks is the lowest, or not distinguishably higher:
the 95 % bootstrap interval, over tracks, of the difference to the candidate with the lowest cost
reaches down to 0. The strict count asks for the lowest mean cost itself. The choice by estimates
from the other 20 % of the episodes, as if the world was unknown, is judged alike.

What is measured stays in runs/offline-benchmarks/choice, so that a repetition continues, and both
choices in files of their own: a data set that was measured without estimates gets them later.
Remove that folder after a change of the algorithms. The CPU-seconds of the choice by simulation
contain only trainings that were not complete before. Writes its part of
benchmarks/results/offline.json.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from header import print_header
from offline_data import NoisyDriver, record_drivers
from offline_parts import WORK, keep

from rlcar.config import make_config
from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.datasets import Dataset
from rlcar.datasets.combine import split
from rlcar.devices import compile_cache
from rlcar.errors import DatasetError
from rlcar.evaluation.laps import TIME_LIMIT_STEPS, drive
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.offline.candidates import (
    REPORT_SET,
    Trained,
    estimate_candidates,
    estimated_results,
    measure,
    run_folder,
    train_candidates,
)
from rlcar.offline.data_settings import settings_of_data
from rlcar.offline.selection import choose_by_estimates, choose_by_measures
from rlcar.system.durable import replace_text
from rlcar.system.provenance import provenance

RACE = RaceConfig(track=TrackConfig(half_width_px=20.0))
CANDIDATES = ("bc", "cql", "iql")
DRIVERS = ("careful", "longest_ray", "full_throttle")
UPDATES, UNITS = 1_000, 64
ENV_STEPS = 128 * UPDATES  # four samples of each step that is read, in windows of two
SETTINGS = [
    f"training.env_steps={ENV_STEPS}",
    f"training.evaluate_every_env_steps={ENV_STEPS}",
    *(f"{name}.hidden_units={UNITS}" for name in CANDIDATES),
]
RESAMPLES = 2000


def draw_data(seed: int) -> tuple[list[NoisyDriver], int]:
    """Returns the drivers of a data set and its number of transitions."""
    rng = np.random.default_rng([22, seed])
    names = rng.permutation(DRIVERS)[: rng.integers(2, 4)]
    shares = rng.dirichlet(np.full(len(names), 2.0))
    persistence = float(rng.choice([0.0, 0.5, 0.9]))
    drivers = [
        NoisyDriver(str(name), 0.0, float(rng.uniform(0.3, 2.0)), persistence, float(share))
        for name, share in zip(names, shares, strict=True)
    ]
    return drivers, int(rng.choice([30_000, 60_000, 90_000]))


def parts_of(root: Path, seed: int) -> list[Dataset]:
    """Returns 80 % of the episodes, to learn from, and the others."""
    folders = [root / "learned", root / "held-out"]
    if all(folder.exists() for folder in folders):
        return [Dataset.open(folder) for folder in folders]
    return split(Dataset.open(root / "data"), folders, [0.8, 0.2], seed)


def test_cost(candidate: Trained) -> np.ndarray:
    """Returns the steps of each lap on the test tracks; no lap counts as the time limit."""
    named = candidate.policy
    laps = drive(named.policy, named.params, candidate.config.race, REPORT_SET).lap_time_steps
    return np.where(laps > 0, laps, TIME_LIMIT_STEPS).astype(np.float64)


def judge(chosen: str, costs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Says whether a choice is right, by the costs of each candidate on the same tracks."""
    best = min(costs, key=lambda name: costs[name].mean())
    difference = costs[chosen] - costs[best]
    index = np.random.default_rng(0).integers(len(difference), size=(RESAMPLES, len(difference)))
    low, high = np.percentile(difference[index].mean(axis=1), [2.5, 97.5])
    return {
        "chosen": chosen,
        "best": best,
        "regret_steps": float(difference.mean()),
        "regret_interval": [float(low), float(high)],
        "is_best": chosen == best,
        "is_right": bool(low <= 0.0),
    }


def train_case(seed: int) -> tuple[dict[str, Trained], dict[str, str], Dataset]:
    """Records a data set and trains the candidates, unless that is done.

    Returns the trained candidates, the reasons of those that diverged, and the episodes that no
    candidate learned from.
    """
    root = folder_of(seed)
    drivers, transitions = draw_data(seed)
    if not (root / "data").exists():
        record_drivers(root / "data", RACE, drivers, transitions, seed)
    learned, held_out = parts_of(root, seed)
    world, of_data = settings_of_data(learned.folder, None, None)
    configs = {
        name: make_config(overrides=[*of_data, *SETTINGS], world=world, algorithm=name, seed=seed)
        for name in CANDIDATES
    }
    return *train_candidates(root, configs, lambda text: None), held_out


def measure_case(seed: int) -> dict[str, Any]:
    """Judges the choice by simulation."""
    start_s = time.process_time()
    trained, failed, _ = train_case(seed)
    _, measures = measure(trained)
    costs = {name: test_cost(candidate) for name, candidate in trained.items()}
    return {
        "seed": seed,
        "drivers": [str(driver) for driver in draw_data(seed)[0]],
        "transitions": Dataset.open(folder_of(seed) / "learned").transitions,
        "failed": failed,
        "validation_cost": {name: float(one.cost.mean()) for name, one in measures.items()},
        "test_cost": {name: float(cost.mean()) for name, cost in costs.items()},
        "test_lap_rate": {
            name: float((cost < TIME_LIMIT_STEPS).mean()) for name, cost in costs.items()
        },
        "simulation": judge(choose_by_measures(measures).name, costs),
        "cpu_seconds": time.process_time() - start_s,
    }


def measure_estimates(seed: int, updates: int) -> dict[str, Any]:
    """Judges the choice by estimates from the held-out episodes."""
    trained, _, held_out = train_case(seed)
    start_s = time.process_time()
    settings = FittedQSettings(updates=updates)
    try:
        report = estimate_candidates(held_out, trained, folder_of(seed), settings)
    except DatasetError as error:  # too few episodes
        return {"refused": str(error), "cpu_seconds": time.process_time() - start_s}
    assert report is not None  # as it is for images alone
    choice = choose_by_estimates(list(trained), report)
    cpu_s = time.process_time() - start_s
    costs = {name: test_cost(candidate) for name, candidate in trained.items()}
    return judge(choice.name, costs) | {
        "reason": choice.reason,
        "verdicts": {name: one["verdict"] for name, one in estimated_results(report).items()},
        "cpu_seconds": cpu_s,
    }


def folder_of(seed: int) -> Path:
    """Returns the folder of a data set and its runs."""
    return WORK / "choice" / f"{seed:02d}"


def kept(path: Path, measure_now: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what a file holds, and measures it before if there is none."""
    if not path.exists():
        measured = measure_now() | {"commit": provenance(None)["commit"]}
        replace_text(path, json.dumps(measured, indent=1) + "\n")
    return dict(json.loads(path.read_text()))


def trained_at(seed: int) -> dict[str, str | None]:
    """Returns the commit of each candidate's training."""
    runs = {name: run_folder(folder_of(seed), name) / "run.json" for name in CANDIDATES}
    return {name: json.loads(path.read_text())["commit"] for name, path in runs.items()}


def summarise(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures; those of the choice by estimates only if it was measured."""
    simulation = [case["simulation"] for case in cases]
    figures = {
        f"choice_right_of_{len(cases)}": sum(one["is_right"] for one in simulation),
        "choice_is_best": sum(one["is_best"] for one in simulation),
        "choice_largest_regret_steps": max(one["regret_steps"] for one in simulation),
        "choice_cpu_seconds": sum(case["cpu_seconds"] for case in cases),
    }
    measured = [case["estimates"] for case in cases if case["estimates"] is not None]
    estimated = [one for one in measured if "refused" not in one]
    if not estimated:
        return figures
    return figures | {
        "choice_by_estimates_of": len(estimated),
        "choice_by_estimates_refused": len(measured) - len(estimated),
        "choice_by_estimates_right": sum(one["is_right"] for one in estimated),
        "choice_by_estimates_kept_baseline": sum(
            one["chosen"] == CANDIDATES[0] for one in estimated
        ),
        "choice_by_estimates_is_best": sum(one["is_best"] for one in estimated),
        "choice_by_estimates_largest_regret_steps": max(one["regret_steps"] for one in estimated),
        "choice_by_estimates_cpu_seconds": sum(one["cpu_seconds"] for one in measured),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=20, help="number of data sets")
    parser.add_argument(
        "--estimates", type=int, default=20, help="number of data sets with estimates too"
    )
    parser.add_argument("--updates", type=int, default=FittedQSettings().updates)
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    compile_cache.prepare_jax()
    print_header("jax", "numpy")
    load_before = os.getloadavg()[0]
    cases = []
    for seed in range(options.number):
        case = kept(folder_of(seed).with_suffix(".json"), partial(measure_case, seed))
        case["estimates"] = None
        if seed < options.estimates:
            path = WORK / "choice" / f"{seed:02d}-estimates-{options.updates}.json"
            case["estimates"] = kept(path, partial(measure_estimates, seed, options.updates))
        cases.append(case | {"trained_at": trained_at(seed)})
        print(json.dumps(cases[-1]), flush=True)
    settings = {
        "candidates": CANDIDATES,
        "updates": UPDATES,
        "units": UNITS,
        "settings": SETTINGS,
        "estimate_updates": options.updates,
    }
    keep("choice", summarise(cases), load_before, {**settings, "cases": cases})


if __name__ == "__main__":
    main()
