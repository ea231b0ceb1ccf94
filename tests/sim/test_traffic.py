"""Several cars on one track: the grid, rays, contacts, overtaking, practice, and equal bits."""

import functools
import hashlib
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.config import make_config, make_race_config
from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.errors import ConfigError
from rlcar.sim import make_race
from rlcar.sim.backend import make_backend
from rlcar.sim.race import make_world, race_of
from rlcar.sim.vector_env import RaceVectorEnv
from rlcar.track import make_pool

GOLDEN = Path(__file__).parents[1] / "golden" / "traffic.json"
CONFIGS = {
    "classic, two cars": RaceConfig(cars_per_track=2, place_reward=5.0, time_limit_steps=180),
    "grand-prix, eight cars": make_race_config("grand-prix", rival=None, cars_per_track=8, laps=2),
}
GROUPS, STEPS, SEED = 16, 300, 3
CIRCLE = TrackConfig(noise_amplitude=0.0)


def _race(xp=np, seeds=range(4), **settings):
    config = RaceConfig(**settings)
    return make_race(config, make_pool(seeds, config.track), xp, track_choice="fixed")


def _centred(observation, throttle):
    """Steers towards the side where there is more room; `throttle` is a number for each car."""
    left = observation[:, 4] + observation[:, 3] - observation[:, 1] - observation[:, 0]
    throttle = np.broadcast_to(np.float32(throttle), left.shape)
    return np.stack([np.clip(2 * left, -1, 1), throttle], axis=1)


def _ids(number):
    return np.arange(number, dtype=np.int32)


# --- equal bits


@functools.cache
def _pool(name):
    return make_pool(range(60), CONFIGS[name].track)


def _act(step, state, observation, xp):
    """Steers towards the longer of two rays, with disturbances; exact in both libraries."""
    left, right = (xp.rint(observation[:, ray] * np.float32(8)) for ray in (3, 1))
    word = (state.car_id * 20_503 + (step >> 4) * 9_973) & 0x7FFF
    strength = xp.where(state.car_id % 5 == 0, np.float32(2.0**-12), np.float32(2.0**-16))
    steering = (left - right) * np.float32(0.25)
    steering = steering + (word - 0x4000).astype(np.float32) * strength
    return xp.stack([steering, xp.ones_like(steering)], axis=1)


def _drive(race, car_id, steps=STEPS):
    state, time_step = race.reset(car_id, SEED)
    rows = []
    for step in range(steps):
        action = _act(step, state, time_step.observation, np)
        state, time_step, events = race.step(state, action)
        rows.append((state, time_step, events))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


@functools.cache
def _reference(name):
    cars = GROUPS * CONFIGS[name].cars_per_track
    return _drive(make_race(CONFIGS[name], _pool(name), np), _ids(cars))


def _digest(recorded):
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(recorded):
        digest.update(f"{leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _assert_same(recorded, reference):
    leaves = jax.tree.leaves(recorded), jax.tree.leaves(reference)
    for leaf, other in zip(*leaves, strict=True):
        assert leaf.dtype == other.dtype
        np.testing.assert_array_equal(leaf, other)


def test_the_recorded_races_of_several_cars_have_not_changed():
    digests = {name: _digest(_reference(name)) for name in CONFIGS}
    if os.environ.get("RLCAR_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(json.dumps(digests, indent=2) + "\n")
    assert digests == json.loads(GOLDEN.read_text()), (
        "the race changed. Not meant? A bug. Meant? `make golden` and say why in the commit."
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_recorded_races_hold_contacts_overtakings_practice_and_new_races(name):
    state, time_step, events = _reference(name)
    met = events.encounters
    assert met.is_at_fault.sum() > 5
    assert (events.is_crash & ~met.is_at_fault).sum() > 5
    assert met.overtakes.sum() > 5
    assert 0.3 < met.is_racing.mean() < 1.0
    assert (state.traffic.race[-1] > 0).any()
    assert (time_step.is_last & ~time_step.is_terminal).sum() > 5


@pytest.mark.parametrize("name", CONFIGS)
def test_a_jax_scan_repeats_the_numpy_race_of_several_cars_at_any_number_of_groups(name):
    race = make_race(CONFIGS[name], _pool(name))
    cars = 3 * CONFIGS[name].cars_per_track

    @jax.jit
    def scan(state, observation):
        def body(carry, step):
            state, observation = carry
            state, time_step, events = race.step(state, _act(step, state, observation, jnp))
            return (state, time_step.observation), (state, time_step, events)

        return jax.lax.scan(body, (state, observation), jnp.arange(STEPS, dtype=jnp.int32))[1]

    state, time_step = make_race(CONFIGS[name], _pool(name), np).reset(_ids(cars), SEED)
    recorded = jax.tree.map(np.asarray, scan(state, time_step.observation))
    _assert_same(recorded, jax.tree.map(lambda leaf: leaf[:, :cars], _reference(name)))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", CONFIGS)
def test_no_intermediate_overflows_int32_because_int64_gives_the_same_race(name):
    backend = make_backend(np)._replace(integer=np.int64)
    cars = 2 * CONFIGS[name].cars_per_track
    wide = _drive(race_of(make_world(CONFIGS[name], _pool(name), backend)), np.arange(cars))
    reference = jax.tree.map(lambda leaf: leaf[:, :cars], _reference(name))
    for leaf, other in zip(jax.tree.leaves(wide), jax.tree.leaves(reference), strict=True):
        np.testing.assert_array_equal(leaf, other)


# --- the grid


def test_the_first_place_is_that_of_a_single_car_and_the_others_are_behind_the_line():
    config = RaceConfig(cars_per_track=8)
    pool = make_pool(range(20), config.track)
    race = make_race(config, pool, np, track_choice="fixed")
    state, time_step = race.reset(_ids(160), 0)
    alone, _ = make_race(config.alone, pool, np, track_choice="fixed").reset(_ids(20), 0)
    for name in ("x", "y", "heading", "cell", "lap", "position"):
        np.testing.assert_array_equal(getattr(state, name)[::8], getattr(alone, name))
    place = np.arange(160) % 8
    assert (state.track == np.arange(160) // 8).all()
    assert (state.lap == np.where(place == 0, 0, -1)).all()
    length_px = np.repeat(pool.length, 8) / 32
    behind_px = np.where(place == 0, 0.0, (1 - state.position / 2**20) * length_px)
    np.testing.assert_allclose(behind_px, 9.0 * place, atol=0.01)
    assert race.view(state).progress.max() == 0.0
    _, time_step, events = race.step(state, np.zeros((160, 2), np.float32))
    assert not time_step.is_last.any()
    assert not events.encounters.is_at_fault.any()


def test_places_of_the_grid_go_round_from_race_to_race():
    race = _race(cars_per_track=3, time_limit_steps=5)
    state, _ = race.reset(_ids(3), 0)
    first = []
    for _ in range(14):
        if state.episode_steps[0] == 0:
            first.append(int(state.lap.argmax()))
        state, *_ = race.step(state, np.zeros((3, 2), np.float32))
    assert first == [0, 2, 1]


# --- rays, contacts and overtaking


def _one_behind_the_other(gap_px, speeds, **settings):
    """Two cars on a circle, the second `gap_px` behind the first in the middle of the road."""
    race = _race(track=CIRCLE, cars_per_track=2, **settings)
    state, _ = race.reset(_ids(2), 0)
    still = np.zeros((2, 2), np.float32)
    # The first stays on the line; the second is moved to the middle of the road behind it.
    turn = gap_px / (2 * np.pi * 210.0)
    angle = -2 * np.pi * turn
    x, y = 400 + 210 * np.cos(angle), 300 + 210 * np.sin(angle)
    state = state._replace(
        x=np.array([state.x[0], np.rint(x * 4096)], np.int32),
        y=np.array([state.y[0], np.rint(y * 4096)], np.int32),
        heading=np.array([state.heading[0], state.heading[0] - turn * 2**22], np.int32) & 0x3FFFFF,
        speed=np.array(speeds, np.int32) << 16,
        cell=np.array([0, int(100 * (1 - turn))], np.int32),
        position=np.array([0, int(2**20 * (1 - turn))], np.int32),
    )
    return race, state, still


def test_rays_end_at_the_circle_of_another_car_and_only_of_one_ahead():
    race, state, still = _one_behind_the_other(60.0, (0, 0))
    _, time_step, _ = race.step(state, still)
    ahead_px = time_step.observation[:, 2] * 150
    assert ahead_px[1] == pytest.approx(50.0, abs=2.5)  # less its radius; the road bends
    assert ahead_px[0] > 100.0


def test_the_car_behind_is_at_fault_and_crashes_and_the_one_ahead_loses_half_its_speed():
    race, state, still = _one_behind_the_other(12.0, (2, 5))
    state, time_step, events = race.step(state, still)
    assert events.encounters.is_at_fault.tolist() == [False, True]
    assert events.is_crash.tolist() == [False, True]
    assert time_step.is_terminal.tolist() == [False, True]
    assert time_step.reward[1] < -5.0 < time_step.reward[0]
    speed = state.speed / 2**16
    assert speed[0] == pytest.approx(0.5 * 2 * 0.99, abs=0.01)
    assert speed[1] == pytest.approx(5 * 0.99, abs=0.01)


def test_without_contact_nobody_loses_speed():
    race, state, still = _one_behind_the_other(30.0, (2, 5))
    state, _, events = race.step(state, still)
    assert not events.is_crash.any()
    assert state.speed[0] / 2**16 == pytest.approx(2 * 0.99, abs=0.01)


def test_overtaking_counts_once_however_long_two_cars_drive_side_by_side():
    race = _race(track=TrackConfig(noise_amplitude=0.0, half_width_px=60.0), cars_per_track=2,
                 place_reward=7.0)  # fmt: skip
    state, time_step = race.reset(_ids(2), 0)
    overtakes, rewards = np.zeros(2, int), []
    for step in range(150):
        # The second car, which starts behind and further inside, drives past the slow first one.
        throttle = (0.25, 1.0) if step < 100 else (1.0, 0.25)
        action = _centred(time_step.observation, throttle)
        action[1, 0] += 0.3 if step < 30 else 0.0
        state, time_step, events = race.step(state, action)
        assert not events.is_crash.any()
        overtakes += events.encounters.overtakes
        if events.encounters.overtakes.any():
            rewards.append(time_step.reward)
    assert overtakes.tolist() == [0, 1]
    assert len(rewards) == 1
    assert rewards[0][1] > 7.0 > 0.0 > rewards[0][0]


# --- practice


def test_a_car_that_crashed_practises_unseen_until_the_race_is_over():
    race = _race(track=CIRCLE, cars_per_track=2, time_limit_steps=400)
    state, time_step = race.reset(_ids(2), 0)
    track, was_racing, ends = state.track.copy(), [], []
    for _ in range(400):
        action = _centred(time_step.observation, (0.5, 1.0))
        if state.traffic.race[1] == 0 and state.traffic.is_racing[1]:
            action[1] = (1.0, 1.0)  # leaves the road
        state, time_step, events = race.step(state, action)
        was_racing.append(events.encounters.is_racing)
        ends.append(time_step.is_last)
        if state.traffic.race[0] == 1:
            break
        assert (state.track == track).all()
    was_racing, ends = np.array(was_racing), np.array(ends)
    crash = int(ends[:, 1].argmax())
    assert crash < 60
    assert not was_racing[crash + 1 :, 1].any()
    assert was_racing[: ends[:, 0].argmax() + 1, 0].all()
    # Both begin the next race in the same step, on the same track.
    assert time_step.is_first.all()
    assert (state.traffic.race == 1).all()
    assert state.traffic.is_racing.all()
    # The practice laps had no contacts, although the fast car drove through the slow one.
    assert ends[:, 1].sum() >= 2


def test_a_car_that_practises_one_step_longer_joins_the_next_race():
    race = _race(cars_per_track=2, time_limit_steps=50)
    state, _ = race.reset(_ids(2), 0)
    # One car ended two steps before the other: it begins to practise when the race ends.
    state = state._replace(episode_steps=np.array([49, 48], np.int32))
    still = np.zeros((2, 2), np.float32)
    seen = []
    for _ in range(6):
        state, time_step, _ = race.step(state, still)
        seen.append((state.traffic.race.tolist(), state.traffic.is_racing.tolist()))
    assert seen[0] == ([0, 0], [True, True])
    assert seen[1] == ([0, 0], [False, True])  # the first practises, the second has just ended
    assert seen[-1] == ([1, 1], [True, True])


# --- mistakes


def test_mistakes_get_one_clear_sentence():
    with pytest.raises(ConfigError, match="the other cars are the rivals"):
        make_race_config("grand-prix", cars_per_track=2)
    with pytest.raises(ConfigError, match="3 cars cannot be divided into groups"):
        _race(cars_per_track=2).reset(_ids(3), 0)
    with pytest.raises(ConfigError, match="5 cars cannot be divided into groups"):
        RaceVectorEnv(5, config=RaceConfig(cars_per_track=2))
    with pytest.raises(ConfigError, match="training.cars 16 is not a multiple of"):
        make_config(overrides=["race.cars_per_track=3", "training.cars=16"])
    track = make_race_config("grand-prix").track.model_copy(update={"obstacles": 16})
    with pytest.raises(ConfigError, match="stands on the starting grid"):
        _race(seeds=range(300), track=track, cars_per_track=8)
