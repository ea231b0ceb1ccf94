"""Clean candidates and equally good ones, in simulated time but with the code of the servers."""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from delivery_faults import DrawLaps
from delivery_traffic import Lap
from drawn_model import publish_drawn

from rlcar.gates.paired import PairedCosts, decide
from rlcar.registry import Registry
from rlcar.system.durable import replace_text
from serve.delivery.counts import RolloutCounts
from serve.delivery.events import Aborted, Advanced
from serve.delivery.integrations import Integrations
from serve.delivery.operator import Operator
from serve.delivery.progress import due_event
from serve.delivery.sequential import Outcome, paired_differences, paired_evidence
from serve.delivery.specification import default_specification, parse_specification
from serve.delivery.state import RolloutState
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower, warm_up
from serve.policy.policy import load_policy
from serve.policy.rollout_arms import ActiveRollout, RolloutArms
from serve.policy.rollout_follower import RolloutFollower

WINDOW_S = 600
_CARS, _PER_S = 10, 10  # cars of each version, and requests of each car in a second
_POLL_S = 0.5
_USUAL_SHARE = 0.001  # of faulty answers, which the test takes for normal
_LATENCY_S, _SPREAD = 0.0004, 0.4  # log-normal
_STEPS_PER_S = 30.0
_VARIATION, _CRASHES = 0.1, 0.03
_NULL_PAIRS, _GATE_TRACKS, _GATE_LIMIT = 500, 128, 1000.0


def draw_laps_of(path: Path) -> DrawLaps:
    """Returns laps of a hand-written driver on the test tracks, and of it with flipped steering.

    They are simulated once, and kept in a file. The reward of a `good` lap varies by 10 % on top;
    of `mixed` laps 3 % end in a crash besides, after any part of the lap.
    """
    if not path.exists():
        replace_text(path, json.dumps({"good": _laps(1.0), "flipped": _laps(-1.0)}))
    pool = {
        name: [Lap(*one) for one in laps] for name, laps in json.loads(path.read_text()).items()
    }

    def draw(rng: np.random.Generator, kind: str) -> Lap:
        if kind == "flipped":
            return pool[kind][int(rng.integers(len(pool[kind])))]
        lap = pool["good"][int(rng.integers(len(pool["good"])))]
        lap = lap._replace(reward=lap.reward * (1.0 + _VARIATION * float(rng.normal())))
        if kind == "mixed" and rng.random() < _CRASHES:
            part = float(rng.random())
            return Lap(max(1, round(part * lap.steps)), part * lap.reward, is_success=False)
        return lap

    return draw


def _laps(sign: float) -> list[tuple[int, float, bool]]:
    from rlcar.config.race import RaceConfig
    from rlcar.evaluation.drivers import longest_ray
    from rlcar.evaluation.laps import drive
    from rlcar.types import Array, Policy

    def act(*arguments: Any) -> tuple[Any, Array]:
        carry, action = longest_ray.act(*arguments)
        return carry, action * np.array([sign, 1.0], np.float32)

    laps = drive(Policy(initial=longest_ray.initial, act=act), None, RaceConfig(), "test")
    return [
        (int(steps), float(reward), bool(lap_steps > 0))
        for steps, reward, lap_steps in zip(
            laps.steps, laps.reward, laps.lap_time_steps, strict=True
        )
    ]


class _Clock:
    """The time of the simulation."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _State:
    """What the test of KPIs reads of a rollout's state."""

    rollout, weight, specification = "clean", 50.0, default_specification()


class CleanWindows:
    """Ten-minute windows of a candidate that is as good as the stable version."""

    def __init__(self, laps: DrawLaps):
        self._laps = laps
        with tempfile.TemporaryDirectory() as folder:
            registry = Registry(Path(folder))
            for _ in range(2):
                publish_drawn(Path(folder), "nano")
            self._versions = [warm_up(load_policy(registry, number)) for number in (1, 2)]
            self._alias_follower = AliasFollower(registry, "champion", ServerMetrics())
            self._operator = Operator(registry, "champion", "benchmark")

    def run(self, seed: int) -> str | None:
        """Returns the reason of a false rollback within one window, or None."""
        rng, clock = np.random.default_rng(seed), _Clock()
        arms = RolloutArms(clock)
        rollback = default_specification().rollback
        arms.show(ActiveRollout("clean", 1, self._versions[1], 50.0, 0.0, rollback))
        metrics, without = ServerMetrics(), Integrations()
        follower = RolloutFollower(self._operator, self._alias_follower, arms, metrics, without)
        ends_s = np.zeros((2, _CARS))
        looks = int(WINDOW_S / _POLL_S)
        for _ in range(looks):
            self._answers(rng, clock, arms, ends_s)
            follower.pooled = arms.counts
            follower._test(_State, {"one": arms.counts})  # type: ignore[arg-type]
            if arms.alarm is not None:
                return f"{clock.now_s:.0f} s: {arms.alarm.reason}"
        return None

    def _answers(
        self, rng: np.random.Generator, clock: _Clock, arms: RolloutArms, ends_s: np.ndarray
    ) -> None:
        """Answers the requests of half a second, and reports the laps that end within it."""
        rounds = int(_PER_S * _POLL_S)
        latencies_s = _LATENCY_S * np.exp(_SPREAD * rng.normal(size=(rounds, _CARS, 2)))
        faults = rng.random((rounds, _CARS, 2)) < _USUAL_SHARE
        for turn in range(rounds):
            clock.now_s += 1.0 / _PER_S
            for car in range(_CARS):
                for version in range(2):
                    is_fault = bool(faults[turn, car, version])
                    arms.add(
                        self._versions[version],
                        "errors" if is_fault else None,
                        is_fault,
                        float(latencies_s[turn, car, version]),
                    )
                    if clock.now_s >= ends_s[version, car]:
                        self._lap(rng, arms, ends_s, version, car)

    def _lap(
        self,
        rng: np.random.Generator,
        arms: RolloutArms,
        ends_s: np.ndarray,
        version: int,
        car: int,
    ) -> None:
        if ends_s[version, car] > 0.0:
            lap = self._laps(rng, "mixed")
            arms.add_outcome(version + 1, lap.reward, lap.is_success)
        ends_s[version, car] += self._laps(rng, "mixed").steps / _STEPS_PER_S


def null_promoted(laps: DrawLaps, candidates: int, is_over: Callable[[], bool]) -> dict[str, int]:
    """Returns how many equally good candidates are promoted by the A/B test and by the gate.

    The A/B test looks after every lap of the candidate, at most 500 of them, and promotes at the
    first look at which it finds the candidate better.
    """
    specification = parse_specification({"strategy": {"ab": {"maxPairs": _NULL_PAIRS}}})
    state = RolloutState("null", specification, 1, 2, 0.0, step=1, weight=50.0)
    found = {"candidates": 0, "promoted": 0, "aborted": 0, "undecided": 0, "passed_gate": 0}
    for seed in range(candidates):
        if is_over():
            break
        rng = np.random.default_rng(seed)
        verdict = _ab_verdict(rng, laps, state)
        found["candidates"] += 1
        found["promoted"] += verdict == "promoted"
        found["aborted"] += verdict == "aborted"
        found["undecided"] += verdict == "undecided"
        found["passed_gate"] += _passes_gate(rng, laps)
    return found


def _ab_verdict(rng: np.random.Generator, laps: DrawLaps, state: RolloutState) -> str:
    outcomes = [
        Outcome(float(time_s), bool(is_canary), laps(rng, "mixed").reward)
        for time_s, is_canary in enumerate(rng.random(2 * _NULL_PAIRS + 200) < 0.5)
    ]
    differences = paired_differences(outcomes)
    for pairs in range(2, len(differences) + 1):
        evidence = paired_evidence(differences[:pairs])
        event = due_event(state, 0.0, RolloutCounts().value, lambda _, now=evidence: now)
        if isinstance(event, Advanced):
            return "promoted"
        if isinstance(event, Aborted):
            return "aborted"
        if event is not None:
            return "undecided"
    return "undecided"


def _passes_gate(rng: np.random.Generator, laps: DrawLaps) -> bool:
    """Whether the gate before any traffic lets an equally good candidate pass."""
    costs = [
        [lap.steps if lap.is_success else _GATE_LIMIT]
        for lap in (laps(rng, "mixed") for _ in range(2 * _GATE_TRACKS))
    ]
    both = np.array(costs, np.float64).reshape(2, _GATE_TRACKS, 1)
    return decide({"classic": PairedCosts(both[0], both[1])}, 0.0, "steps a lap").passed


def clean_windows(
    laps: DrawLaps, seeds: range, end_s: float, on_result: Callable[[Any], None]
) -> None:
    """Simulates windows until all are done or the time is over; tells each result."""
    windows = CleanWindows(laps)
    for seed in seeds:
        if time.monotonic() > end_s:
            return
        on_result({"seed": seed, "rolled_back": windows.run(seed)})
