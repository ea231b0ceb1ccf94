"""Do cars learn to lap tracks of other shapes than those that rlcar draws?

    python benchmarks/own_tracks.py [--seeds 3]

Trains with the preset `fused-ppo` on the five tracks of tests/track/own/shapes.py, read from CSV
files, once for each seed, and drives each of them. The peers in the same run are the lower bound of
each lap, the hand-written drivers, and policies of the same preset that were trained on drawn
tracks alone. Runs stay in runs/own-tracks, and a repetition continues there. Writes
benchmarks/results/own_tracks.json and own_tracks.png, the laps of the first seed.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from header import origin, print_header

from rlcar.agents import make_agent
from rlcar.config import Config, make_config
from rlcar.config.race import RaceConfig
from rlcar.devices import compile_cache
from rlcar.evaluation.drivers import DRIVERS, REFERENCE, make_reference
from rlcar.evaluation.laps import drive, report
from rlcar.evaluation.pictures import draw_laps
from rlcar.evaluation.run_report import load_policy
from rlcar.runs.metrics_file import read_metrics
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.system.durable import replace_text
from rlcar.track import make_tracks, set_seeds
from rlcar.track.own.fitting import Scale
from rlcar.track.own.reading import with_own_tracks
from rlcar.training.loop import train

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.track.own.shapes import write  # noqa: E402

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "runs" / "own-tracks"


def own_race(race: RaceConfig) -> RaceConfig:
    """Returns the race on the five tracks, which are read from CSV files."""
    with tempfile.TemporaryDirectory() as folder:
        track = with_own_tracks(race.track, write(Path(folder)), Scale())
    return race.model_copy(update={"track": track})


def config_of(kind: str, seed: int) -> Config:
    """Returns the settings of a training on `own` or on `drawn` tracks."""
    config = make_config("fused-ppo", seed=seed)
    if kind == "drawn":
        return config
    return config.model_copy(update={"race": own_race(config.race)})


def finish(kind: str, seed: int) -> Path:
    """Trains, or goes on with an interrupted training; ends the program if it is stopped."""
    config, folder = config_of(kind, seed), WORK / f"{kind}-{seed}"
    save = checkpoint.latest(folder / "checkpoints")
    is_complete = save is not None and save.env_steps >= config.training.env_steps
    if not is_complete and train(config, folder, save).interrupted:
        raise SystemExit(f"stopped; the same command continues in {folder}")
    return folder


def laps_of(kind: str, seed: int, race: RaceConfig) -> Any:
    """Returns the laps of a trained policy on the five tracks."""
    folder, config = finish(kind, seed), config_of(kind, seed)
    agent = make_agent(config, SPEC)
    _, params = load_policy(folder, folder, agent, seed)
    return drive(agent.policy, params, race, "test")


def first_with_all(folder: Path) -> int | None:
    """Returns the env steps of the first evaluation that lapped every track it drove."""
    rows = read_metrics(folder / "metrics.jsonl")
    return next(
        (int(row["env_steps"]) for row in rows if row.get("evaluation/lap_rate") == 1), None
    )


def main(seeds: int) -> None:
    load = os.getloadavg()[0]
    compile_cache.prepare_jax()
    print_header("jax", "numpy")
    race = own_race(make_config("fused-ppo").race)
    numbers = tuple(set_seeds("test", race.track))
    tracks = make_tracks(numbers, race.track)
    kinds = {
        kind: [laps_of(kind, seed, race) for seed in range(1, seeds + 1)]
        for kind in ("own", "drawn")
    }
    drivers = {**DRIVERS, REFERENCE: make_reference(numbers, race)}
    laps = {
        **{
            f"{kind}-{seed}": one
            for kind, all_ in kinds.items()
            for seed, one in enumerate(all_, 1)
        },
        **{name: drive(policy, None, race, "test") for name, policy in drivers.items()},
    }
    scores = report(laps, tracks, race, track_set="own")
    title = f"fused-ppo, seed 1: {len(tracks)} own tracks"
    draw_laps(RESULTS / "own_tracks.png", tracks, laps["own-1"], title)
    figures: dict[str, Any] = {"bound_steps": scores["bound_steps"]}
    for kind in kinds:
        of_kind = [scores["drivers"][f"{kind}-{seed}"] for seed in range(1, seeds + 1)]
        figures[f"{kind}_lap_rate"] = float(np.mean([one["lap_rate"] for one in of_kind]))
        figures[f"{kind}_lowest_lap_rate"] = min(one["lap_rate"] for one in of_kind)
        figures[f"{kind}_over_bound_pct"] = float(
            np.mean([one["over_bound_pct"] for one in of_kind])
        )
    for name in drivers:
        figures[f"{name}_lap_rate"] = scores["drivers"][name]["lap_rate"]
        figures[f"{name}_over_bound_pct"] = scores["drivers"][name]["over_bound_pct"]
    first = [first_with_all(WORK / f"own-{seed}") for seed in range(1, seeds + 1)]
    figures["own_env_steps_until_all_lapped"] = first
    for track, row in zip(tracks, range(len(tracks)), strict=True):
        steps = [int(one.lap_time_steps[row]) for one in kinds["own"]]
        figures[f"own_lap_steps_{track.name}"] = steps
        bound = scores["drivers"]["own-1"]["per_track"][row]["bound_steps"]
        figures[f"bound_steps_{track.name}"] = bound
    result = {"figures": figures, "drivers": scores["drivers"], "origin": origin(load)}
    replace_text(RESULTS / "own_tracks.json", json.dumps(result, indent=1) + "\n")
    for name, value in figures.items():
        print(f"figure {name}={value}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    main(parser.parse_args().seeds)
