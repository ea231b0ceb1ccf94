"""Candidates that misbehave in a real server: how long until every car is the stable version's."""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from delivery_traffic import CARS, Lap, Traffic
from drawn_model import untrained_metadata
from faulty_server import describe, switch
from watched_server import serving

from rlcar.config import make_config
from rlcar.registry import Registry
from rlcar.registry.architecture import policy_shapes
from rlcar.sim import SPEC
from serve.delivery.assignment import is_canary
from serve.delivery.events import Aborted
from serve.delivery.operator import Operator
from serve.delivery.specification import parse_specification
from serve.policy.policy import try_model

SERVER = str(Path(__file__).parent / "faulty_server.py")
LANES = 8  # servers at once, each with traffic of its own
CANARY_CARS, _WEIGHT = 2, 20.0  # so that the candidate gets 20 requests/s
_CANARY = [{"setWeight": _WEIGHT}, {"pause": {}}]
_SIGN_FLIPS = {"name": "steers to the other side", "value": "signFlipShare", "interval": "1s",
               "failureCondition": "> 0.1"}  # fmt: skip
_SHADOW = [
    {"shadow": {"weight": 100, "duration": "2s"}},
    {"analysis": {"metrics": [_SIGN_FLIPS]}},
    *_CANARY,
]
_QUIET_S = 3.0  # between two rollouts
_REWARD = 0.8  # of a candidate with less reward
# An action takes so many times as long; with the rest of an answer's time, an answer about twice.
_SLOWER = 2.25
_CLEAN_S = 4.0  # in which the candidate drives before it becomes faulty


class Case(NamedTuple):
    """A kind of candidate."""

    name: str
    version: int
    steps: list[Any]
    longest_s: float  # after the fault has begun; later it counts as not found
    is_from_start: bool = False  # otherwise the fault begins while the candidate drives


# The version of each fault in the registry; version 1 is the stable one, version 2 has no fault.
VERSIONS = {
    3: describe("errors", 1.0),
    4: describe("errors", 0.2),
    5: describe("errors", 0.05),
    6: describe("errors", 0.02),
    7: describe("latency", _SLOWER),
    8: describe("flip", 1.0),
}
CASES = {
    one.name: one
    for one in (
        Case("hard", 3, _CANARY, 30.0),
        Case("hard_start", 3, _CANARY, 30.0, is_from_start=True),
        Case("20pct", 4, _CANARY, 40.0),
        Case("5pct", 5, _CANARY, 60.0),
        Case("2pct", 6, _CANARY, 100.0),
        Case("latency", 7, _CANARY, 60.0),
        Case("flip", 8, _CANARY, 60.0),
        Case("flip_shadow", 8, _SHADOW, 30.0, is_from_start=True),
        Case("reward", 2, _CANARY, 120.0),
    )
}
DrawLaps = Callable[[np.random.Generator, str], Lap]  # `good`, `flipped`


def publish(folder: Path) -> None:
    """Publishes the stable version and all candidates: the same weights, other descriptions."""
    config = make_config("nano")
    rng = np.random.default_rng(0)

    def drawn(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2:
            return (0.5 + rng.random(shape)).astype(np.float32)
        return (rng.normal(size=shape) * 1.5 / shape[-2] ** 0.5).astype(np.float32)

    # Weights that let the steering use its whole range.
    arrays = {name: drawn(shape) for name, shape in policy_shapes(config, SPEC).items()}
    registry = Registry(folder)
    for number in range(1, max(VERSIONS) + 1):
        registry.add(arrays, untrained_metadata(config, VERSIONS.get(number, "drawn weights")))
    registry.promote(1)


def measure(
    jobs: list[str], laps: DrawLaps, end_s: float, on_result: Callable[[Any], None]
) -> None:
    """Makes the named cases until none is left or the time is over; tells each result."""
    asyncio.run(_measure(list(jobs), laps, end_s, on_result))


async def _measure(
    jobs: list[str], laps: DrawLaps, end_s: float, on_result: Callable[[Any], None]
) -> None:
    with contextlib.ExitStack() as stack:
        lanes = []
        for _ in range(min(LANES, len(jobs))):
            models = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models"
            publish(models)
            options = ("--set", "deadline_ms=1000")
            server = serving("realtime", models, *options, command=(SERVER,))
            lanes.append((f"http://127.0.0.1:{stack.enter_context(server).port}", models))
        await asyncio.gather(
            *(
                _drive(_Lane(url, models, laps, number), jobs, end_s, on_result)
                for number, (url, models) in enumerate(lanes)
            )
        )


class _Lane:
    """One server with its cars."""

    def __init__(self, url: str, models: Path, laps: DrawLaps, number: int):
        self.operator = Operator(Registry(models), "champion", "benchmark")
        self.case, self.fault = CASES["hard"], switch(models)
        self.rollouts = 1000 * number
        self._laps, self._rng = laps, np.random.default_rng(time.time_ns())
        self.traffic = Traffic(url, number, self._draw_lap)

    def begin_fault(self) -> float:
        """Lets the candidate become faulty; returns the time of `time.perf_counter`."""
        self.fault.touch()
        if self.case.name == "flip":  # the cars leave the road soon
            for car in self.traffic.cars_of(self.case.version):
                self.traffic.begin_lap(car, self._laps(self._rng, "flipped"))
        return time.perf_counter()

    def _draw_lap(self, version: int) -> Lap:
        is_faulty = version != 1 and self.fault.exists()
        if is_faulty and self.case.name == "flip":
            return self._laps(self._rng, "flipped")
        lap = self._laps(self._rng, "good")
        is_worse = is_faulty and self.case.name == "reward"
        return lap._replace(reward=lap.reward * _REWARD) if is_worse else lap

    def next_name(self) -> str:
        """Returns the next name of a rollout that gives the candidate exactly two cars."""
        while True:
            self.rollouts += 1
            name = f"bench-{self.rollouts}"
            cars = sum(is_canary(name, f"car-{car}", _WEIGHT) for car in range(CARS))
            if cars == CANARY_CARS:
                return name


async def _drive(
    lane: _Lane, jobs: list[str], end_s: float, on_result: Callable[[Any], None]
) -> None:
    is_over = asyncio.Event()
    driving = asyncio.create_task(lane.traffic.drive(is_over.is_set))
    await asyncio.sleep(3.0)
    while True:
        left_s = end_s - time.monotonic() - _QUIET_S - 3.0
        fitting = [name for name in jobs if CASES[name].longest_s + _CLEAN_S < left_s]
        if not fitting:
            break
        jobs.remove(fitting[0])
        on_result(await _rollout(lane, CASES[fitting[0]]))
    is_over.set()
    await driving


async def _rollout(lane: _Lane, case: Case) -> dict[str, Any]:
    """Makes one rollout, and says how long a faulty candidate has driven cars.

    The time counts from the beginning of the fault to the candidate's last answer. For a fault from
    the start it counts from the beginning of the rollout to the entry in the journal.
    """
    traffic, operator = lane.traffic, lane.operator
    lane.case = case
    await asyncio.sleep(_QUIET_S)
    traffic.told.clear()
    if case.is_from_start:
        lane.fault.touch()
    specification = parse_specification({"strategy": {"canary": {"steps": case.steps}}})
    name, start = lane.next_name(), operator.start
    await asyncio.to_thread(
        start, case.version, specification, try_model, is_again=True, rollout=name
    )
    began_s = time.perf_counter()
    wall_s = time.time()
    if not case.is_from_start:
        while len(traffic.cars_of(case.version)) < CANARY_CARS:
            await asyncio.sleep(0.05)
        await asyncio.sleep(_CLEAN_S)
        began_s, wall_s = lane.begin_fault(), time.time()
    is_found = await _is_found(operator, began_s + case.longest_s)
    if not is_found:
        await asyncio.to_thread(operator.abort, "not found")
    await asyncio.sleep(1.5)
    entry = (await asyncio.to_thread(operator.read)).entries[-1]
    assert isinstance(entry.event, Aborted)
    lane.fault.unlink(missing_ok=True)
    mine = [
        one for one in traffic.told if one.version == case.version and one.received_s >= began_s
    ]
    laps = [version for time_s, version in traffic.laps if time_s >= began_s]
    last_s = max((one.received_s for one in mine), default=began_s) - began_s
    return {
        "case": case.name,
        "found": is_found,
        "rollback_s": round(entry.time_s - wall_s if case.is_from_start else last_s, 3),
        "reason": entry.event.reason,
        "ratio": entry.event.numbers.get("latencyRatio"),
        "cars": len({one.car for one in mine}),
        "answers": len(mine),
        "brakes": sum(one.source != "model" for one in mine),
        "laps": sum(version == case.version for version in laps),
    }


async def _is_found(operator: Operator, until_s: float) -> bool:
    """Waits until the rollout has ended; returns False if it goes on until the time."""
    while time.perf_counter() < until_s:
        await asyncio.sleep(0.1)
        state = (await asyncio.to_thread(operator.read)).state
        if state is not None and state.phase == "Degraded":
            return True
    return False


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures of each case; a fault that was not found counts as infinitely late."""
    figures: dict[str, Any] = {}
    for name in CASES:
        own = [one for one in results if one["case"] == name]
        if not own:
            continue
        times_s = [one["rollback_s"] if one["found"] else np.inf for one in own]
        figures[f"rollback_{name}_repetitions"] = len(own)
        figures[f"rollback_{name}_not_found"] = sum(not one["found"] for one in own)
        for label, percent in (("median", 50), ("p95", 95)):
            value = float(np.percentile(times_s, percent, method="inverted_cdf"))
            figures[f"rollback_{name}_{label}_s"] = round(value, 2) if np.isfinite(value) else None
        for key in ("cars", "answers", "brakes"):
            values = [one[key] for one in own]
            figures[f"rollback_{name}_{key}_median"] = float(np.median(values))
            figures[f"rollback_{name}_{key}_most"] = max(values)
        ratios = [one["ratio"] for one in own if one["ratio"] is not None]
        if ratios:
            figures[f"rollback_{name}_ratio_median"] = round(float(np.median(ratios)), 3)
        if name in ("flip", "reward"):
            laps = [one["laps"] for one in own]
            figures[f"rollback_{name}_laps_median"] = float(np.median(laps))
            figures[f"rollback_{name}_laps_p95"] = float(
                np.percentile(laps, 95, method="inverted_cdf")
            )
    return figures


def read_results(path: Path) -> list[dict[str, Any]]:
    """Returns the finished repetitions of a file; none if there is no file."""
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found
