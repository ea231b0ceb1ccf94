"""Rollouts under load: errors, latency, and cars that change the version more often than needed."""

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from delivery_traffic import CARS, Told, Traffic
from drawn_model import publish_drawn
from watched_server import serving

from rlcar.registry import Registry
from serve.delivery.assignment import is_canary
from serve.delivery.operator import Operator
from serve.delivery.specification import parse_specification
from serve.policy.policy import try_model

SERVERS = {"realtime": 2, "ray": 1}  # at once, each with traffic of its own
# Ray Serve runs two replicas.
_OPTIONS = {"realtime": (), "ray": ("--set", "min_replicas=2", "--set", "max_replicas=2")}
_CALM_S, _AFTER_S, _STEP_S = 6.0, 3.0, 4.0
_ABORT_AFTER_S = 6.0
_LONGEST_S = 60.0
_LIMITS = ("--set", "deadline_ms=1000")
_STEPS = [
    step
    for weight in (20.0, 50.0, 100.0)
    for step in ({"setWeight": weight}, {"pause": {"duration": f"{_STEP_S:g}s"}})
]


def measure(lane: str, wanted: list[str], end_s: float) -> list[dict[str, Any]]:
    """Makes rollouts until all wanted ones (`promote`, `abort`) are made, or the time is over."""
    return asyncio.run(_measure(lane, list(wanted), end_s))


async def _measure(lane: str, wanted: list[str], end_s: float) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        lanes = []
        for _ in range(SERVERS[lane]):
            models = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models"
            publish_drawn(models, "nano")
            publish_drawn(models, "nano")
            Registry(models).promote(1)
            server = stack.enter_context(serving(lane, models, *_LIMITS, *_OPTIONS[lane]))
            lanes.append((f"http://127.0.0.1:{server.port}", models))
        await asyncio.gather(
            *(
                _drive(number, url, models, wanted, end_s, results)
                for number, (url, models) in enumerate(lanes)
            )
        )
    return results


async def _drive(
    number: int,
    url: str,
    models: Path,
    wanted: list[str],
    end_s: float,
    results: list[dict[str, Any]],
) -> None:
    traffic, is_over = Traffic(url, number), asyncio.Event()
    driving = asyncio.create_task(traffic.drive(is_over.is_set))
    operator = Operator(Registry(models), "champion", "benchmark")
    await asyncio.sleep(3.0)
    while wanted and time.monotonic() + _CALM_S + 4 * _STEP_S + 10.0 < end_s:
        kind = wanted.pop(0)
        results.append(await _rollout(operator, traffic, kind))
    is_over.set()
    await driving


async def _rollout(operator: Operator, traffic: Traffic, kind: str) -> dict[str, Any]:
    """Makes one rollout; times are those of `time.perf_counter`."""
    traffic.told.clear()
    traffic.lost = 0
    calm_s = time.perf_counter()
    await asyncio.sleep(_CALM_S)
    stable = await asyncio.to_thread(operator.registry.resolve, "champion")
    specification = parse_specification({"strategy": {"canary": {"steps": _STEPS}}})
    began_s = time.perf_counter()
    state = await asyncio.to_thread(operator.start, 3 - stable, specification, try_model)
    if kind == "abort":
        await asyncio.sleep(_ABORT_AFTER_S)
        await asyncio.to_thread(operator.abort, "as the benchmark wants")
    while time.perf_counter() - began_s < _LONGEST_S:
        await asyncio.sleep(0.2)
        now = (await asyncio.to_thread(operator.read)).state
        assert now is not None
        if now.is_over:
            break
    await asyncio.sleep(_AFTER_S)
    ended_s = time.perf_counter()
    told = [one for one in traffic.told if one.due_s >= calm_s]
    before = [_ms(one) for one in told if one.due_s < began_s]
    during = [_ms(one) for one in told if began_s <= one.due_s < ended_s]
    failed = [one for one in told if one.status != 200 or one.source != "model"]
    return {
        "kind": kind,
        "phase": now.phase,
        "message": now.message,
        "requests": len(told) + traffic.lost,
        "errors": len(failed) + traffic.lost,
        "switched_back": _switched_back(told, state.rollout, is_promoted=now.is_promoted),
        "before_ms": before,
        "during_ms": during,
    }


def _ms(one: Told) -> float:
    return round(1e3 * (one.received_s - one.due_s), 3)


def _switched_back(told: list[Told], rollout: str, *, is_promoted: bool) -> int:
    """Counts the cars that changed the version more often than the rollout asks for."""
    number = 0
    for car in range(CARS):
        own = sorted((one for one in told if one.car == car), key=lambda one: one.steps)
        versions = [one.version for one in own if one.source == "model"]
        changes = sum(a != b for a, b in zip(versions, versions[1:], strict=False))
        # After 6 s of an aborted rollout the weight is 50 %, so other cars never change.
        most = 1 if is_promoted else 2 * is_canary(rollout, f"car-{car}", 50.0)
        number += changes > most
    return number


def summary(rollouts: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures of all rollouts."""
    before, during = (
        np.concatenate([one[name] for one in rollouts]) for name in ("before_ms", "during_ms")
    )
    p99_before_ms, p99_during_ms = (float(np.percentile(part, 99)) for part in (before, during))
    return {
        "requests": sum(one["requests"] for one in rollouts),
        "errors": sum(one["errors"] for one in rollouts),
        "rollouts": len(rollouts),
        "rollouts_promoted": sum(one["phase"] == "Healthy" for one in rollouts),
        "rollouts_aborted": sum(
            one["kind"] == "abort" and one["phase"] == "Degraded" for one in rollouts
        ),
        "rollouts_otherwise": [
            one["message"]
            for one in rollouts
            if (one["kind"] == "promote") != (one["phase"] == "Healthy")
        ],
        "sessions_switched_back": sum(one["switched_back"] for one in rollouts),
        "p50_before_ms": round(float(np.percentile(before, 50)), 3),
        "p50_during_ms": round(float(np.percentile(during, 50)), 3),
        "p99_before_ms": round(p99_before_ms, 3),
        "p99_during_ms": round(p99_during_ms, 3),
        "p99_ratio": round(p99_during_ms / p99_before_ms, 3),
    }
