"""How often is unchanged driving called drift, and how soon is a wrong sensor found?

    python benchmarks/drift.py [--world classic --world grand-prix] [--days 5] [--repetitions 100]

Trains a policy for the classic race (`fused-ppo`, in less than a minute), and takes the reference
from its evaluation as a publication does. In the grand prix the driver is a rule (`careful`), which
laps half of the tracks, so that its laps differ much from each other. One car drives at 20 steps a
second, each lap on another track that neither training nor evaluation has seen, and time is
simulated. Every lap, the server's own code looks at the last ten.

A wrong sensor is part of the closed loop: the policy acts on what it shows. Each repetition begins
with ten laps without it. Writes benchmarks/results/drift.json.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from header import origin, print_header

from rlcar.config import make_config
from rlcar.config.race import RaceConfig
from rlcar.evaluation.drivers import careful
from rlcar.evaluation.lap_reference import (
    FEWEST_STEPS,
    LapStatistics,
    Reference,
    lap_statistics,
    make_lap_reference,
    parse_reference,
    reference_tree,
    settled,
)
from rlcar.evaluation.laps import Laps, make_evaluator
from rlcar.system.durable import replace_text
from rlcar.track import TRACK_SETS
from rlcar.types import Params, Policy
from serve.api.schema import CheckedRequest, ObservationBatch
from serve.observing.drift_laps import LapCutter, ServedStep, WatchedCars
from serve.observing.drift_state import VersionDrift
from serve.policy.drift_watch import DriftWatch

RESULTS = Path(__file__).parent / "results" / "drift.json"
STEPS_PER_S, DAY_S = 20.0, 86_400.0
UNSEEN, BATCH = 2_000_000, 2048  # the first track, and tracks that are driven at once
MOST_LAPS = 50  # after which a repetition ends without a finding
RAYS = slice(0, 5)
CHANNELS = tuple([*(f"ray_{ray}" for ray in range(5)), "speed", "steering", "throttle"])


class Driver(NamedTuple):
    """Who drives which race."""

    policy: Policy
    params: Params
    race: RaceConfig


def _scaled(which: Any, factor: float, offset: float = 0.0) -> Callable[[Any], Any]:
    def sense(observation: Any) -> Any:
        wrong = observation.at[:, which].multiply(factor).at[:, which].add(offset)
        return jnp.clip(wrong, 0.0, 1.0)

    return sense


SENSORS: dict[str, Callable[[Any], Any]] = {
    "rays_10_percent_long": _scaled(RAYS, 1.1),
    "rays_10_percent_short": _scaled(RAYS, 0.9),
    "rays_plus_a_tenth": _scaled(RAYS, 1.0, 0.1),
    "all_10_percent_high": _scaled(slice(0, 6), 1.1),
    "speed_10_percent_low": _scaled(5, 0.9),
    "one_ray_10_percent_long": _scaled(0, 1.1),
}


def trained(folder: Path) -> Driver:
    """Trains the classic policy."""
    from rlcar.agents import make_agent
    from rlcar.evaluation.run_report import load_policy
    from rlcar.sim import SPEC
    from rlcar.training.loop import train

    config = make_config("fused-ppo", overrides=["training.env_steps=700000"])
    train(config, folder)
    agent = make_agent(config, SPEC)
    _, params = load_policy(folder, folder, agent, config.seed)
    return Driver(agent.policy, params, config.race)


def drive(driver: Driver, tracks: range, sense: Callable[[Any], Any] | None = None) -> Laps:
    """Drives each track once; the observations of the result are those that the policy got."""

    def act(params: Any, carry: Any, time_step: Any, key: Any, explore: bool) -> Any:
        seen = time_step
        if sense is not None:
            seen = time_step._replace(observation=sense(time_step.observation))
        return driver.policy.act(params, carry, seen, key, explore)

    policy = driver.policy._replace(act=act)
    laps = make_evaluator(policy, driver.race, tracks, keeps_steps=True)(driver.params)
    assert laps.driven is not None
    if sense is None:
        return laps
    steps, cars, size = laps.driven.observation.shape
    seen = np.array(sense(jnp.asarray(laps.driven.observation.reshape(-1, size))))
    driven = laps.driven._replace(observation=seen.reshape(steps, cars, size))
    return laps._replace(driven=driven)


class ServedLap(NamedTuple):
    """A lap as a server describes it."""

    statistics: list[LapStatistics]  # none if it is too short
    duration_s: float
    reward: float
    is_lap: bool


def served(laps: Laps, reference: Reference) -> Iterator[ServedLap]:
    """Yields the laps one after the other."""
    assert laps.driven is not None
    channels = np.concatenate(laps.driven[:2], axis=2).astype(np.float64)
    for car, steps in enumerate(laps.steps.tolist()):
        lap = settled(channels[:steps, car])
        statistics = [lap_statistics([lap], reference.edges)] if steps >= FEWEST_STEPS else []
        is_lap = bool(laps.lap_time_steps[car] > 0)
        yield ServedLap(statistics, steps / STEPS_PER_S, float(laps.reward[car]), is_lap)


def false_alarms(driver: Driver, reference: Reference, days: int) -> dict[str, float]:
    """Drives for days and counts the alarms."""
    version = VersionDrift(1, reference, CHANNELS)
    now_s, low_kpis, laps, first = 0.0, 0, 0, UNSEEN
    was_low = False
    while now_s < days * DAY_S:
        for lap in served(drive(driver, range(first, first + BATCH)), reference):
            now_s += lap.duration_s
            laps += 1
            version.add_laps(lap.statistics)
            version.reported.add(lap.reward, lap.is_lap)
            version.turn(now_s, now_s)
            report = version.report()
            is_low = any(one is not None and one.is_low for one in (report.reward, report.success))
            low_kpis += is_low and not was_low
            was_low = is_low
        first += BATCH
    driven_days = now_s / DAY_S
    return {
        "days": driven_days,
        "laps": laps,
        "false_alarms": version.alarms,
        "false_alarms_per_day": version.alarms / driven_days,
        "false_alarms_of_reward_or_success": low_kpis,
    }


def detection(driver: Driver, reference: Reference, repetitions: int) -> dict[str, Any]:
    """Counts how many laps with each wrong sensor pass until it is found."""
    cars = range(UNSEEN - BATCH, UNSEEN - BATCH + 512)
    usual = list(served(drive(driver, cars), reference))
    found: dict[str, Any] = {}
    for name, sense in SENSORS.items():
        wrong = list(served(drive(driver, cars, sense), reference))
        rng = np.random.default_rng(0)
        laps = []
        for _ in range(repetitions):
            version, now_s = VersionDrift(1, reference, CHANNELS), 0.0
            order = rng.permutation(len(cars))
            sequence = [usual[index] for index in order[:10]]
            sequence += [wrong[index] for index in order[10 : 10 + MOST_LAPS]]
            for lap in sequence:
                now_s += max(lap.duration_s, 10.0)
                version.add_laps(lap.statistics)
                version.turn(now_s, now_s)
                if version.alarms:
                    break
            laps.append(version.laps - 10 if version.alarms else None)
        within = [count for count in laps if count is not None]
        found[name] = {
            "repetitions": repetitions,
            "found_within_10_laps": sum(count <= 10 for count in within),
            "found_within_50_laps": len(within),
            "median_laps": float(np.median(within)) if within else None,
            "lap_rate": float(np.mean([lap.is_lap for lap in wrong])),
        }
        print(f"  {name}: {found[name]}", flush=True)
    return found


def costs(reference: Reference) -> dict[str, float]:
    """Measures what an answer, a step in the thread, a window and a reference cost, in CPU time."""
    watch, cars = DriftWatch(None, 60.0), WatchedCars(1)  # type: ignore[arg-type]
    batch = ObservationBatch(np.full((1, 6), 0.5, np.float32), np.zeros(1, bool))
    request = CheckedRequest(batch, True, "car", 0, None, None, None)
    action = np.zeros((1, 2), np.float32)
    times_us = []
    for _ in range(10_000):
        began_s = time.perf_counter()
        watch.note(cars, 1, request, action)
        times_us.append((time.perf_counter() - began_s) * 1e6)
    cutter, steps = LapCutter(reference), 20_000
    step = ServedStep(batch.observation, batch.is_first, action, None, None)
    began_s = time.process_time()
    for _ in range(steps):
        cutter.add(cars, step)
    step_us = (time.process_time() - began_s) / steps * 1e6
    began_s = time.process_time()
    version = VersionDrift(1, reference, CHANNELS)
    load_ms = (time.process_time() - began_s) * 1e3
    window = LapStatistics(*(array[:10] for array in reference.laps))
    began_s = time.process_time()
    for _ in range(100):
        version.detector.examine(window)
    return {
        "note_us_p50": float(np.percentile(times_us, 50)),
        "note_us_p99": float(np.percentile(times_us, 99)),
        "thread_us_per_step": step_us,
        "window_ms": (time.process_time() - began_s) * 10.0,
        "load_reference_ms": load_ms,
        "reference_bytes": float(len(json.dumps(reference_tree(reference)))),
    }


def measure(driver: Driver, days: int, repetitions: int) -> tuple[dict[str, Any], Reference]:
    """Returns the figures of one driver, and its reference."""
    evaluation = drive(driver, TRACK_SETS["test"])
    assert evaluation.driven is not None
    is_lap = evaluation.lap_time_steps > 0
    made = make_lap_reference(*evaluation.driven, evaluation.steps, is_lap)
    reference = parse_reference(json.loads(json.dumps(reference_tree(made))), 6, 2)
    unchanged = false_alarms(driver, reference, days)
    print(f"  unchanged: {unchanged}", flush=True)
    wrong = detection(driver, reference, repetitions)
    return {"lap_rate": float(is_lap.mean()), "unchanged": unchanged, "wrong": wrong}, reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", action="append", choices=["classic", "grand-prix"])
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=100)
    options = parser.parse_args()
    print_header("jax", "numpy")
    for world in options.world or ["classic", "grand-prix"]:
        load = os.getloadavg()[0]
        if world == "classic":
            with tempfile.TemporaryDirectory() as folder:
                driver = trained(Path(folder) / "run")
        else:
            driver = Driver(careful, None, make_config(world=world).race)
        print(world)
        figures, reference = measure(driver, options.days, options.repetitions)
        if world == "classic":
            figures["costs"] = costs(reference)
        # Worlds that were measured before keep their figures.
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[world] = figures | {"origin": origin(load)}
        replace_text(RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
        _print_figures(world.replace("-", "_"), figures)


def _print_figures(world: str, figures: dict[str, Any]) -> None:
    per_day = figures["unchanged"]["false_alarms_per_day"]
    print(f"figure drift_false_alarms_per_day_{world}={per_day:.3g}")
    for name, found in figures["wrong"].items():
        print(f"figure drift_found_{world}_{name}={found['found_within_10_laps']}")
    for name, cost in figures.get("costs", {}).items():
        print(f"figure drift_{name}={cost:.3g}")


if __name__ == "__main__":
    main()
