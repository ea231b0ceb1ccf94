"""Evaluates a served policy over the network: it drives the simulator in closed loop."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import io_callback
from rich.console import Console

from rlcar.config import parse_config
from rlcar.config.race import RaceConfig
from rlcar.evaluation.laps import Laps, drive, track_seeds
from rlcar.sim import SPEC
from rlcar.system.tables import make_table
from rlcar.types import Array, Params, Policy, TimeStep
from serve.client.client import DriveClient


def drive_served(
    client: DriveClient, track_set: str | Sequence[int] = "test", race: RaceConfig | None = None
) -> dict[str, Any]:
    """Drives every track of the set at once; returns laps, latencies and counts of fallbacks.

    Without `race` the cars drive the race that the served model was trained for.
    """
    model = client.check()
    race = race or parse_config(model["config"]).race
    seeds = track_seeds(track_set)
    laps = drive(_remote_policy(client), None, race, seeds)
    counts = client.counts
    return {
        "model_version": model["version"],
        "tracks": len(seeds),
        "track_set": track_set if isinstance(track_set, str) else "given",
        **_lap_figures(laps),
        "requests": sum(counts.sources.values()),
        "latency_p50_ms": counts.latency_ms(50.0),
        "latency_p99_ms": counts.latency_ms(99.0),
        "holds": counts.sources["hold"],
        "fallbacks": counts.sources["fallback"],
        "timeouts": counts.timeouts,
        "reconnects": max(0, counts.connects - 1),
    }


def print_drive(result: dict[str, Any], console: Console) -> None:
    """Prints the result as a table, and then its figures one per line."""
    columns = ("laps", "lap time", "crashes", "p50", "p99", "holds", "fallbacks")
    title = f"version {result['model_version']} on the {result['track_set']} tracks"
    table = make_table(*columns, right=columns, title=title)
    time_steps = result["lap_time_steps"]
    table.add_row(
        f"{100 * result['lap_rate']:.1f} % of {result['tracks']}",
        "none" if time_steps is None else f"{time_steps:.1f} steps",
        f"{100 * result['crash_rate']:.1f} %",
        f"{result['latency_p50_ms']:.2f} ms",
        f"{result['latency_p99_ms']:.2f} ms",
        str(result["holds"]),
        str(result["fallbacks"]),
    )
    console.print(table)
    for name, value in result.items():
        if isinstance(value, int | float):
            console.print(f"figure {name}={value:.6g}", highlight=False)


def _remote_policy(client: DriveClient) -> Policy:
    """Returns a policy whose every step is a request to the server."""

    def request(observation: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        reply = client.act(np.asarray(observation), np.asarray(is_first))
        return reply.action.astype(np.float32)

    def act(
        params: Params, carry: Array, time_step: TimeStep, key: Array, explore: bool
    ) -> tuple[Array, Array]:
        shape = jax.ShapeDtypeStruct((len(carry), SPEC.action_size), np.float32)
        inputs = time_step.observation, time_step.is_first
        return carry, io_callback(request, shape, *inputs, ordered=True)

    return Policy(initial=lambda cars: np.zeros((cars, 0), np.float32), act=act)


def _lap_figures(laps: Laps) -> dict[str, Any]:
    is_lap = laps.lap_time_steps > 0
    return {
        "lap_rate": float(is_lap.mean()),
        "lap_time_steps": float(laps.lap_time_steps[is_lap].mean()) if is_lap.any() else None,
        "crash_rate": float(laps.is_crash.mean()),
        "progress": float(laps.progress.mean()),
    }
