"""The live session's messages: who drives, and the figures."""

import math
from collections.abc import Collection

from serve.live.drive import Drive
from serve.live.manual_control import ManualControl
from serve.live.run_follower import RunFollower
from serve.live.scene import SceneDrive
from serve.live.viewers import Viewers


def report_state(
    drive: Drive | SceneDrive, control: ManualControl, viewers: Viewers
) -> dict[str, object]:
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


def report_stats(drive: Drive | SceneDrive, follower: RunFollower | None) -> dict[str, object]:
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
        **_ends(drive),
        "steps": drive.steps,
        "manual_control": drive.is_manual,
        "running": drive.is_running,
        # Stage, attempt and thresholds of the followed run, if it belongs to a curriculum.
        "curriculum": None if follower is None else follower.curriculum,
    }


def _ends(drive: Drive | SceneDrive) -> dict[str, object]:
    """Counts the laps or, in another environment that says so, the successes."""
    if isinstance(drive, Drive):
        return {"laps": drive.laps}
    return {"laps": 0, "successes": drive.successes if drive.says_success else None}


def _mean(values: Collection[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
