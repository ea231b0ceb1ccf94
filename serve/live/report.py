"""The live session's messages: the road, who drives, and the figures."""

import math
from collections.abc import Collection

from rlcar.track import make_track
from rlcar.types import Array
from serve.live.car import Car
from serve.live.drive import Drive
from serve.live.manual_control import ManualControl
from serve.live.run_follower import RunFollower
from serve.live.viewers import Viewers


def report_track(car: Car, seeds: range) -> dict[str, object]:
    """Describes the road of a car, in px; sent once for each track."""
    config = car.course.config
    track = make_track(car.track_seed, config.track)

    def line(points: Array) -> list[list[float]]:
        return [[round(float(x), 2), round(float(y), 2)] for x, y in points]

    return {
        "seed": track.seed,
        "first_seed": seeds[0],
        "last_seed": seeds[-1],
        "inner_px": line(track.inner_px),
        "outer_px": line(track.outer_px),
        "centre_px": line(track.centre_px),
        "obstacles_px": line(track.obstacles_px),
        "obstacles_are_solid": config.track.obstacle_placement == "road",
        "obstacle_radius_px": track.obstacle_radius_px,
        "top_speed_px_per_step": config.vehicle.top_speed_px_per_step,
    }


def report_state(drive: Drive, control: ManualControl, viewers: Viewers) -> dict[str, object]:
    """Describes who drives; changes rarely."""
    viewer = None if control.driver is None else viewers.find(control.driver)
    loaded = None if drive.policy is None else drive.policy.loaded
    return {
        "is_running": drive.is_running,
        "is_manual": drive.is_manual,
        "driver": None if control.driver is None else viewer.id if viewer else "request",
        "policy": None if loaded is None else loaded.label,
        "version": None if loaded is None else loaded.version,
        "policy_env_steps": None if loaded is None else loaded.env_steps,
        "ghost": None if drive.ghost is None else drive.ghost.loaded.label,
        "dreams": drive.dreamer is not None,
    }


def report_stats(drive: Drive, follower: RunFollower | None) -> dict[str, object]:
    """Returns the figures of the car, and the losses of the run if one is followed."""
    losses = [] if follower is None else follower.losses(100)
    exploration = None if follower is None else follower.last("actor/exploration_probability")
    return {
        "episode_rewards": list(drive.rewards),
        "losses": losses,
        "episode_reward_mean": _mean(drive.rewards),
        "loss_mean": _mean(losses),
        # A policy on the page takes its most likely action; only a training explores.
        "exploration_rate": exploration or 0.0,
        "episodes": drive.episodes,
        "laps": drive.laps,
        "steps": drive.steps,
        "manual_control": drive.is_manual,
        "running": drive.is_running,
    }


def _mean(values: Collection[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
