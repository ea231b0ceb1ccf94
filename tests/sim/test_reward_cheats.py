"""The progress reward pays no other behaviour as much as an honest slow lap."""

import functools

import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.sim import make_race
from rlcar.track import make_pool

SEEDS = range(8)


def _follow(observation, speed_share):
    """Keeps to the middle of the road at a share of the top speed."""
    left = observation[:, 4] + observation[:, 3] - observation[:, 1] - observation[:, 0]
    throttle = np.clip(20 * (speed_share - observation[:, 5]), -1, 1)
    return np.stack([np.clip(2 * left, -1, 1), throttle], axis=1)


def _constant(steering, throttle):
    return lambda step, observation: np.tile([steering, throttle], (len(observation), 1))


def _slow_lap(step, observation):
    return _follow(observation, 0.35)


def _circle(step, observation):
    """Turns on the spot, as tightly as the car can, without leaving the road."""
    action = _follow(observation, 0.2)
    action[:, 0] = 1.0
    return action


def _wrong_way(step, observation):
    """Turns round at walking pace, then follows the road to the other end."""
    action = _follow(observation, 0.35)
    turning = step < 50
    action[turning * np.ones(len(action), bool)] = [1.0, 0.01]
    return action


def _cut(step, observation):
    """Straight over the infield."""
    return _constant(1.0 if step < 18 else 0.0, 1.0)(step, observation)


def _oscillate(step, observation):
    """Over the same stretch of road again and again, half a turn on the spot between."""
    phase = step % 90
    action = _follow(observation, 0.3)
    if phase >= 50:
        action[:] = [1.0, 0.02 if phase > 52 else -1.0]
    return action


CHEATS = {
    "park": _constant(0.0, -1.0),
    "circle": _circle,
    "wrong way": _wrong_way,
    "cut the infield": _cut,
    "oscillate": _oscillate,
    "crash at once": _constant(-1.0, 1.0),
}


@functools.cache
def _returns(world, drive, reward="progress"):
    """Drives one episode on each track; returns its reward and whether it was a lap, `[N]`."""
    config = make_race_config(world, reward=reward, track={"noise_amplitude": 0.15})
    race = make_race(config, make_pool(SEEDS, config.track), xp=np, track_choice="fixed")
    state, time_step = race.reset(np.arange(len(SEEDS), dtype=np.int32), 0)
    total = np.zeros(len(SEEDS))
    done, lapped = np.zeros((2, len(SEEDS)), bool)
    for step in range(config.time_limit_steps):
        action = drive(step, time_step.observation).astype(np.float32)
        state, time_step, events = race.step(state, action)
        total += np.where(done, 0, time_step.reward)
        lapped |= events.is_finish & ~done
        done |= time_step.is_last
        if done.all():
            break
    return total, lapped


# A single-track car cannot turn on the spot, so only the classic car can use two of the cheats.
TRIED = [("classic", cheat) for cheat in CHEATS] + [
    ("grand-prix-1", cheat) for cheat in CHEATS if cheat not in ("wrong way", "oscillate")
]


@pytest.mark.parametrize(("world", "cheat"), TRIED)
def test_the_progress_reward_pays_no_cheat_as_much_as_a_slow_lap(world, cheat):
    honest, lapped = _returns(world, _slow_lap)
    assert lapped.all()
    cheated, laps_cheated = _returns(world, CHEATS[cheat])
    assert not laps_cheated.any()
    assert (cheated < honest - 500).all()
    assert (cheated < 250).all()


@pytest.mark.long
def test_the_documented_reward_pays_for_circling_as_its_contract_says():
    """It pays for speed in any direction, which is why it is not the default."""
    honest, lapped = _returns("classic", _slow_lap, "documented")
    assert lapped.all()
    circled, laps = _returns("classic", _circle, "documented")
    assert not laps.any()
    assert (circled > 900).all()
    for cheat in ("park", "cut the infield", "crash at once"):
        assert (_returns("classic", CHEATS[cheat], "documented")[0] < honest - 500).all()
