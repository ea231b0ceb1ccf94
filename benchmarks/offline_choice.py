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

What is measured stays in runs/offline-benchmarks/choice, so that a repetition continues. Remove
that folder after a change of the algorithms. Writes its part of benchmarks/results/offline.json.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from header import print_header
from offline_data import NoisyDriver, record_drivers
from offline_parts import WORK, keep

from rlcar.cli.train_data import settings_of_data
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
    measure,
    train_candidates,
)
from rlcar.offline.selection import choose_by_estimates, choose_by_measures
from rlcar.system.durable import replace_text

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


def measure_case(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Records a data set, trains the candidates, and judges both choices."""
    root = WORK / "choice" / f"{seed:02d}"
    start_s = time.process_time()
    drivers, transitions = draw_data(seed)
    if not (root / "data").exists():
        record_drivers(root / "data", RACE, drivers, transitions, seed)
    learned, held_out = parts_of(root, seed)
    world, of_data = settings_of_data(learned.folder, None, None)
    configs = {
        name: make_config(overrides=[*of_data, *SETTINGS], world=world, algorithm=name, seed=seed)
        for name in CANDIDATES
    }
    trained, failed = train_candidates(root, configs, lambda text: None)
    _, measures = measure(trained)
    costs = {name: test_cost(candidate) for name, candidate in trained.items()}
    case: dict[str, Any] = {
        "seed": seed,
        "drivers": [str(driver) for driver in drivers],
        "transitions": learned.transitions,
        "failed": failed,
        "validation_cost": {name: float(one.cost.mean()) for name, one in measures.items()},
        "test_cost": {name: float(cost.mean()) for name, cost in costs.items()},
        "test_lap_rate": {
            name: float((cost < TIME_LIMIT_STEPS).mean()) for name, cost in costs.items()
        },
        "simulation": judge(choose_by_measures(measures).name, costs),
        "estimates": None,
    }
    if seed < options.estimates:
        settings = FittedQSettings(updates=options.updates)
        try:
            report = estimate_candidates(held_out, trained, root, settings)
        except DatasetError as error:  # too few episodes
            refused = {"refused": str(error)}
            return case | refused | {"cpu_seconds": time.process_time() - start_s}
        choice = choose_by_estimates(list(trained), report)
        case["estimates"] = judge(choice.name, costs) | {
            "reason": choice.reason,
            "verdicts": {name: one["verdict"] for name, one in report["policies"].items()},
        }
    return case | {"cpu_seconds": time.process_time() - start_s}


def summarise(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures."""
    simulation = [case["simulation"] for case in cases]
    estimated = [case["estimates"] for case in cases if case["estimates"] is not None]
    return {
        f"choice_right_of_{len(cases)}": sum(one["is_right"] for one in simulation),
        "choice_is_best": sum(one["is_best"] for one in simulation),
        "choice_largest_regret_steps": max(one["regret_steps"] for one in simulation),
        "choice_by_estimates_of": len(estimated),
        "choice_by_estimates_right": sum(one["is_right"] for one in estimated),
        "choice_by_estimates_is_best": sum(one["is_best"] for one in estimated),
        "choice_cpu_seconds": sum(case["cpu_seconds"] for case in cases),
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
        path = WORK / "choice" / f"{seed:02d}.json"
        if not path.exists():
            case = measure_case(seed, options)
            replace_text(path, json.dumps(case, indent=1) + "\n")
        cases.append(json.loads(path.read_text()))
        print(json.dumps(cases[-1]), flush=True)
    settings = {"candidates": CANDIDATES, "settings": SETTINGS, "estimate_updates": options.updates}
    keep("choice", summarise(cases), load_before, {**settings, "cases": cases})


if __name__ == "__main__":
    main()
