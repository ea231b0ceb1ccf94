"""How well do policies drive that are learned from mixed, noisy data, beside the noisy drivers?

    python benchmarks/offline_quality.py [--data classic_narrow] [--algorithm bc --algorithm cql]

Trains the candidates of `rlcar offline`, lets it choose on the validation tracks, and drives the 64
test tracks with the candidates and with the drivers of the data, with their errors and without. A
lap that fails costs 1,000 steps. The CPU-seconds of a training include its compilation and its
evaluations. Data, runs and reports stay in runs/offline-benchmarks: a repetition trains only what
is missing or has other settings. Writes its parts of benchmarks/results/offline.json.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from header import print_header
from offline_data import (
    Driver,
    HalfTrained,
    NoisyDriver,
    as_recorded,
    plain,
    record_drivers,
    runs_beside,
)
from offline_parts import WORK, keep

from rlcar.config import Config, make_config, make_race_config
from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.datasets import Dataset
from rlcar.devices import compile_cache
from rlcar.errors import NonFiniteError
from rlcar.evaluation.laps import TIME_LIMIT_STEPS, drive
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.offline.candidates import run_folder, train_candidates
from rlcar.offline.data_settings import settings_of_data
from rlcar.offline.run import select
from rlcar.system.durable import replace_text
from rlcar.track import TRACK_SETS
from rlcar.types import Policy

# Its own key in the results, as the third model-free algorithm is not named there.
KEYS = {"bc": "bc", "cql": "cql", "iql": "third", "dreamer": "world_model"}


class DataSet(NamedTuple):
    """What is recorded, and how the candidates learn from it."""

    race: RaceConfig
    drivers: tuple[Driver, ...]
    settings: dict[str, list[str]]  # of each candidate, as for --set
    transitions: int = 120_000


def updates(number: int, *more: str) -> list[str]:
    """Returns settings for so many train steps of 256 recorded transitions each."""
    env_steps = 128 * number  # four samples of each step that is read, in windows of two
    return [
        f"training.env_steps={env_steps}",
        f"training.evaluate_every_env_steps={env_steps // 4}",
        *more,
    ]


NARROW = RaceConfig(track=TrackConfig(half_width_px=20.0))


def erring(largest: float) -> tuple[Driver, ...]:
    """Returns the three drivers with errors of up to this deviation."""
    names = ("careful", "longest_ray", "full_throttle")
    return tuple(NoisyDriver(name, 0.0, largest) for name in names)


DATA_SETS = {
    "classic_narrow": DataSet(
        NARROW,
        erring(2.4),
        {
            "bc": updates(2_000),
            "cql": updates(4_000, "cql.hidden_units=64"),
            "iql": updates(2_000),
            "dreamer": ["training.env_steps=100000"],
        },
    ),
    # Behavioural cloning laps more of the tracks from it.
    "classic_narrow_smaller_errors": DataSet(
        NARROW,
        erring(2.2),
        {"bc": updates(2_000), "cql": updates(4_000, "cql.hidden_units=64")},
    ),
    "grand_prix": DataSet(
        make_race_config("grand-prix"),
        # Scripted drivers alone do not show what happens elsewhere (docs/experiments.md).
        (
            HalfTrained(0, share=0.35),
            HalfTrained(3, share=0.25),
            NoisyDriver("careful", 0.05, 0.5, share=0.4),
        ),
        {"bc": [], "cql": [], "iql": [], "dreamer": []},
    ),
}


def score(policy: Policy, race: RaceConfig) -> dict[str, Any]:
    """Drives the test tracks; returns the share of laps, and the mean steps of a lap."""
    laps = drive(policy, None, race, "test").lap_time_steps
    charged = np.where(laps > 0, laps, TIME_LIMIT_STEPS)
    return {"lap_rate": float((laps > 0).mean()), "charged_lap_steps": float(charged.mean())}


def score_drivers(data: DataSet, runs: Path) -> dict[str, Any]:
    """Scores each driver of the data as it was recorded, and without its error.

    With errors, the tracks are driven by cars with all amounts of error, as the data was.
    """
    tracks = tuple(TRACK_SETS["test"])
    return {
        driver.label: {
            "recorded": score(as_recorded(driver, data.race, tracks, runs), data.race),
            "without_error": score(plain(driver, data.race, tracks, runs), data.race),
        }
        for driver in data.drivers
    }


def configs_for(data: DataSet, folder: Path, names: list[str], seed: int) -> dict[str, Config]:
    """Returns the config of each candidate."""
    world, of_data = settings_of_data(folder, None, None)
    return {
        name: make_config(
            overrides=[*of_data, *data.settings[name]], world=world, algorithm=name, seed=seed
        )
        for name in names
    }


def open_data(name: str, seed: int) -> Dataset:
    """Records a data set, unless that is done; ends the benchmark if it was recorded otherwise."""
    data, folder = DATA_SETS[name], WORK / name / "data"
    if not folder.exists():
        return record_drivers(folder, data.race, data.drivers, data.transitions, seed)
    dataset = Dataset.open(folder)
    drivers = [source.about.get("drivers") for source in dataset.description.sources]
    if dataset.world.race != data.race or drivers != [[str(one) for one in data.drivers]]:
        sys.exit(f"{folder} was recorded with other settings: remove {folder.parent}")
    return dataset


def train_timed(out: Path, name: str, config: Config) -> dict[str, float]:
    """Trains one candidate, unless that is done with the same settings; returns its seconds."""
    path = out / f"seconds-{name}.json"
    settings = json.loads(config.model_dump_json())
    if path.exists():
        earlier = json.loads(path.read_text())
        if earlier.get("settings") == settings:
            return dict(earlier["seconds"])
    # Of other settings, or stopped: its seconds would not count.
    shutil.rmtree(run_folder(out, name), ignore_errors=True)
    start_s, cpu_s = time.perf_counter(), time.process_time()
    # A selection of all candidates reports what diverged, and does not train it again.
    with contextlib.suppress(NonFiniteError):
        train_candidates(out, {name: config}, print)
    seconds = {
        "seconds": time.perf_counter() - start_s,
        "cpu_seconds": time.process_time() - cpu_s,
    }
    replace_text(path, json.dumps({"seconds": seconds, "settings": settings}))
    return seconds


def measure(name: str, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the figures of a data set, and the details."""
    data, out = DATA_SETS[name], WORK / name / "offline"
    dataset = open_data(name, options.seed)
    drivers = score_drivers(data, runs_beside(dataset.folder))
    best = max(drivers.values(), key=lambda one: one["recorded"]["lap_rate"])
    figures = {"best_behaviour_lap_rate": best["recorded"]["lap_rate"]}
    names = [each for each in data.settings if each in (options.algorithm or KEYS)]
    if not names:
        sys.exit(f"{name} has no settings for {', '.join(options.algorithm)}")
    configs = configs_for(data, dataset.folder, names, options.seed)
    out.mkdir(parents=True, exist_ok=True)
    seconds = {each: train_timed(out, each, config) for each, config in configs.items()}
    (out / "plan.json").unlink(missing_ok=True)  # of earlier candidates, or other settings
    fitted = FittedQSettings(updates=options.updates)
    result = select(dataset, None, configs, out, None, fitted, print)
    policies = {}
    for each, candidate in result["candidates"].items():
        laps = candidate["laps"]
        figures[f"{KEYS[each]}_lap_rate"] = None if laps is None else laps["lap_rate"]
        policies[each] = {
            "settings": data.settings[each], "validation_cost": candidate["cost"],
            "failed": candidate["failed"], "test": laps, **seconds[each],
        }  # fmt: skip
        figures[f"{KEYS[each]}_cpu_seconds"] = seconds[each]["cpu_seconds"]
    figures["best_kept"] = result["chosen"]
    return figures, {
        "transitions": dataset.transitions,
        "data_sha256": dataset.fingerprint,
        "reason": result["reason"],
        "drivers": drivers,
        "policies": policies,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", action="append", choices=list(DATA_SETS), help="may be repeated; default: all"
    )
    parser.add_argument(
        "--algorithm", action="append", choices=list(KEYS), help="may be repeated; default: all"
    )
    parser.add_argument(
        "--updates", type=int, default=100, help="of the estimates, which decide nothing here"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    compile_cache.prepare_jax()
    print_header("jax", "numpy")
    load_before = os.getloadavg()[0]
    for name in options.data or DATA_SETS:
        try:
            figures, details = measure(name, options)
        except NonFiniteError as error:  # of the baseline, or of every candidate
            sys.exit(f"{name}: {error}")
        keep(f"quality {name}", {name: figures}, load_before, details)
        print(json.dumps(details, indent=1))


if __name__ == "__main__":
    main()
