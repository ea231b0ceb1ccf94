"""Evaluates a served policy over the network: it drives the simulator in closed loop."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from rich.console import Console

from rlcar.config import parse_config
from rlcar.config.race import RaceConfig
from rlcar.datasets.behaviour import Noise, truncated_normal
from rlcar.errors import UserError
from rlcar.evaluation.laps import Laps, drive, track_seeds
from rlcar.sim import SPEC
from rlcar.sim.rewards import CRASH_REWARD
from rlcar.track import set_name
from rlcar.types import Array, Params, Policy, TimeStep
from serve.api.schema import MAX_CARS
from serve.client.client import DriveClient
from serve.client.evaluation import Reports, connection_figures, print_figures, print_table
from serve.client.laps import Lap
from serve.client.outcome import OutcomeOptions


def drive_served(
    client: DriveClient,
    track_set: str | Sequence[int] = "test",
    race: RaceConfig | None = None,
    *,
    noise: Noise | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Drives every track of the set at once; returns laps, latencies and counts of fallbacks.

    Without `race` the cars drive the race that the served model was trained for. With `noise` they
    draw their actions around those of the server. They report rewards, ends of episodes and what
    they drew, for a server that records, and the lap of each car for a rollout.
    """
    model = client.check()
    race = race or trained_race(model)
    seeds = track_seeds(track_set, race.track)
    if len(seeds) > MAX_CARS:
        raise UserError(
            f"a request holds up to {MAX_CARS} cars, not {len(seeds)}: drive fewer tracks, with "
            "--track-count"
        )
    reports = _LapReports(client, len(seeds))
    policy = _remote_policy(client, noise, reports)
    laps = drive(policy, None, race, seeds, seed=seed, shows_ends=True)
    return {
        "model_version": model["version"],
        "tracks": len(seeds),
        "track_set": set_name(track_set if isinstance(track_set, str) else "given", race.track),
        **_lap_figures(laps),
        **connection_figures(client),
        **reports.figures(),
    }


def trained_race(model: Mapping[str, Any]) -> RaceConfig:
    """Returns the race that a served model, as `DriveClient.check` describes it, drove in."""
    return parse_config(model["config"]).race


def print_drive(result: dict[str, Any], console: Console) -> None:
    """Prints the result as a table, and then its figures one per line."""
    time_steps = result["lap_time_steps"]
    columns = {
        "laps": f"{100 * result['lap_rate']:.1f} % of {result['tracks']}",
        "lap time": "none" if time_steps is None else f"{time_steps:.1f} steps",
        "crashes": f"{100 * result['crash_rate']:.1f} %",
    }
    title = f"version {result['model_version']} on the {result['track_set']} tracks"
    print_table(title, columns, result, console)
    print_figures(result, console)


class _Carry(NamedTuple):
    """What the cars did last, if it was drawn."""

    action: Array  # [N, A] float32
    logp: Array  # [N] float32


class _LapReports:
    """Reports the first episode of each car once it has ended, as `drive` counts it."""

    def __init__(self, client: DriveClient, cars: int):
        self._reports = Reports(client)
        self._reward, self._is_done = np.zeros(cars), np.zeros(cars, bool)

    def add(self, step: TimeStep) -> None:
        """Takes a step of all cars, after the request with its observations."""
        self._reward += np.where(self._is_done, 0.0, step.reward)
        has_ended = step.is_last & ~self._is_done
        self._is_done |= has_ended
        # Both rewards of the race charge much more for a crash than a step can earn.
        is_lap = step.is_terminal & (step.reward > CRASH_REWARD / 5)
        self._reports.add(
            [
                Lap(float(self._reward[car]), bool(is_lap[car]), car=int(car))
                for car in np.flatnonzero(has_ended)
            ]
        )

    def figures(self) -> dict[str, int]:
        """Returns what became of the reports."""
        return self._reports.figures("laps")


def _remote_policy(client: DriveClient, noise: Noise | None, reports: _LapReports) -> Policy:
    """Returns a policy whose every step is a request to the server."""

    def request(time_step: TimeStep, carry: _Carry) -> np.ndarray:
        step = TimeStep(*(None if field is None else np.asarray(field) for field in time_step))
        outcome: OutcomeOptions = {
            "reward": step.reward,
            "terminated": step.is_terminal,
            "truncated": step.is_last & ~step.is_terminal,
        }
        if noise is not None and not step.is_first.all():
            # Where an episode begins there is no last action.
            action = np.where(step.is_first[:, None], np.nan, carry.action)
            outcome |= {"executed": action, "executed_logp": carry.logp, "executed_by": "model"}
        reply = client.act(step.observation, step.is_first, **outcome)
        reports.add(step)
        return reply.action.astype(np.float32)

    def act(
        params: Params, carry: _Carry, time_step: TimeStep, key: Array, explore: bool
    ) -> tuple[_Carry, Array]:
        cars = len(carry.logp)
        shape = jax.ShapeDtypeStruct((cars, SPEC.action_size), np.float32)
        action = io_callback(request, shape, time_step, carry, ordered=True)
        logp = carry.logp
        if noise is not None:
            amount = jnp.linspace(noise.low, noise.high, cars, dtype=jnp.float32)
            action, logp = truncated_normal(action, amount, key)
        return _Carry(action, logp), action

    def initial(cars: int) -> _Carry:
        return _Carry(np.zeros((cars, SPEC.action_size), np.float32), np.zeros(cars, np.float32))

    return Policy(initial=initial, act=act)


def _lap_figures(laps: Laps) -> dict[str, Any]:
    is_lap = laps.lap_time_steps > 0
    return {
        "lap_rate": float(is_lap.mean()),
        "lap_time_steps": float(laps.lap_time_steps[is_lap].mean()) if is_lap.any() else None,
        "crash_rate": float(laps.is_crash.mean()),
        "progress": float(laps.progress.mean()),
    }
