"""The rules of the race: laps, crashes, time limits, rewards and resets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.config.race import RaceConfig, TrackConfig
from rlcar.errors import ConfigError
from rlcar.sim import SPEC, make_race
from rlcar.sim.rewards import LAP_REWARD
from rlcar.track import TRACK_SETS, make_pool, make_tracks

CIRCLE = TrackConfig(noise_amplitude=0.0)
STRAIGHT_ON = np.array([0.0, 1.0], np.float32)
STILL = np.array([0.0, -1.0], np.float32)


def _race(config=None, seeds=range(4), **settings):
    config = RaceConfig(**settings) if config is None else config
    return make_race(config, make_pool(seeds, config.track), xp=np, track_choice="fixed")


def _start(race, cars=1, seed=0):
    return race.reset(np.arange(cars, dtype=np.int32), seed)


def _centred(observation, throttle=1.0):
    """A proportional driver: steers towards the side where there is more room."""
    left = observation[:, 4] + observation[:, 3] - observation[:, 1] - observation[:, 0]
    return np.stack([np.clip(2 * left, -1, 1), np.full_like(left, throttle)], axis=1)


def _same(action, cars=1):
    return np.tile(np.asarray(action, np.float32), (cars, 1))


def _episode(race, drive, cars=1, seed=0, most=2000):
    """Drives until car 0's episode ends; returns the steps and events."""
    state, time_step = _start(race, cars, seed)
    steps = []
    for _ in range(most):
        state, time_step, events = race.step(state, drive(state, time_step))
        steps.append((state, time_step, events))
        if time_step.is_last[0]:
            return steps
    raise AssertionError("the episode did not end")


def test_a_race_starts_at_rest_on_the_first_centre_point_along_the_first_segment():
    race = _race()
    state, time_step = _start(race, cars=4)
    view = race.view(state)
    for car, track in enumerate(make_tracks(range(4), TrackConfig())):
        assert (view.x_px[car], view.y_px[car]) == tuple(track.centre_px[0])
        along = track.centre_px[1] - track.centre_px[0]
        heading_deg = np.rad2deg(np.arctan2(-along[1], along[0])) % 360
        assert view.heading_deg[car] == pytest.approx(heading_deg, abs=1e-3)
    assert (view.progress == 0).all()
    assert time_step.observation.shape == (4, SPEC.observation_size)
    assert (time_step.observation[:, 5] == 0).all()
    assert time_step.is_first.all()
    assert not time_step.is_last.any()


def test_a_lap_finishes_the_race_and_pays_a_thousand_less_its_time():
    steps = _episode(_race(), lambda state, time_step: _centred(time_step.observation))
    _, time_step, events = steps[-1]
    assert events.is_finish[0]
    assert time_step.is_terminal[0]
    assert events.lap_time_steps[0] == len(steps)
    assert 200 < len(steps) < 300
    paid = sum(float(time_step.reward[0]) for _, time_step, _ in steps)
    assert paid == pytest.approx(1000 - 0.1 * len(steps), abs=5)
    assert not any(one.is_last[0] for _, one, _ in steps[:-1])


def test_two_laps_are_timed_apart():
    race = _race(laps=2)
    steps = _episode(race, lambda state, time_step: _centred(time_step.observation))
    laps = [int(events.lap_time_steps[0]) for *_, events in steps if events.lap_time_steps[0]]
    assert len(laps) == 2
    assert sum(laps) == len(steps)
    assert laps[1] < laps[0]
    assert [bool(events.is_finish[0]) for *_, events in steps].count(True) == 1


def test_leaving_the_road_is_a_crash_that_costs_ten_and_terminates():
    for reward in ("progress", "documented"):
        steps = _episode(_race(reward=reward), lambda *_: _same(STRAIGHT_ON))
        state, time_step, events = steps[-1]
        assert events.is_crash[0]
        assert not events.is_finish[0]
        assert time_step.is_terminal[0]
        assert time_step.is_last[0]
        if reward == "documented":
            assert time_step.reward[0] == -10.0
        else:
            most = LAP_REWARD * 8 / 1300  # for a step of 5 px on the inside of a bend
            assert -10 - most < time_step.reward[0] < -10 + most


def test_time_runs_out_without_being_terminal():
    steps = _episode(_race(time_limit_steps=25), lambda *_: _same(STILL))
    _, time_step, events = steps[-1]
    assert len(steps) == 25
    assert time_step.is_last[0]
    assert not time_step.is_terminal[0]
    assert not events.is_crash[0]


def test_the_last_observation_is_kept_and_the_next_step_starts_anew():
    race = _race(time_limit_steps=25)
    state, time_step = _start(race)
    first = time_step.observation
    for _ in range(25):
        state, time_step, _ = race.step(state, _same(STRAIGHT_ON))
    assert time_step.is_last[0]
    assert time_step.observation[0, 5] > 0.8
    assert race.view(state).episode_steps[0] == 25
    state, time_step, events = race.step(state, _same(STRAIGHT_ON))
    assert time_step.is_first[0]
    assert not time_step.is_last[0]
    assert time_step.reward[0] == 0
    np.testing.assert_array_equal(time_step.observation, first)
    assert race.view(state).episode_steps[0] == 0
    assert not events.is_crash[0]
    state, time_step, _ = race.step(state, _same(STRAIGHT_ON))
    assert not time_step.is_first[0]
    assert race.view(state).episode_steps[0] == 1


def _turn_round(race, state):
    """Turns a car on a wide circle by half a turn, nearly on the spot."""
    for _ in range(36):
        state, *_ = race.step(state, _same([1.0, -0.95]))
    return state


def test_reversing_over_the_start_earns_no_lap_and_loses_progress():
    config = RaceConfig(track=CIRCLE)
    race = _race(config)
    state, time_step = _start(race)
    state = _turn_round(race, state)
    paid, laps = 0.0, 0
    for _ in range(200):  # the wrong way round, over the start again and again in the reverse sense
        state, time_step, events = race.step(state, _centred(time_step.observation, 0.3))
        paid += float(time_step.reward[0])
        laps += int(events.lap_time_steps[0] > 0)
    assert not time_step.is_last[0]
    assert state.lap[0] < 0
    assert laps == 0
    assert paid < -200 * 0.1 - 10
    assert race.view(state).progress[0] == 0
    # Back again over the start: that closes no lap either.
    state = _turn_round(race, state)
    for _ in range(400):
        state, time_step, events = race.step(state, _centred(time_step.observation, 0.3))
        laps += int(events.lap_time_steps[0] > 0)
        if state.lap[0] == 0:
            break
    assert state.lap[0] == 0
    assert laps == 0


def test_oscillating_over_a_checkpoint_pays_it_once():
    race = _race(RaceConfig(track=CIRCLE, reward="documented", time_limit_steps=100_000))
    state, time_step = _start(race)
    bonuses = 0
    was = 0
    for _ in range(12):
        for _ in range(80):
            state, time_step, _ = race.step(state, _centred(time_step.observation, 0.3))
            assert not time_step.is_last[0]
            bonuses += int(time_step.reward[0] > 5.2)
            was = max(was, int(state.checkpoint[0]))
        state = _turn_round(race, state)
    assert bonuses == was
    assert 0 < bonuses < 10


def test_a_checkpoint_pays_five_and_a_thousand_over_its_milliseconds():
    race = _race(RaceConfig(track=CIRCLE, reward="documented"))
    state, time_step = _start(race)
    steps = 0
    while state.checkpoint[0] == 0:
        state, time_step, _ = race.step(state, _centred(time_step.observation))
        steps += 1
    milliseconds = steps * 1000 / 30
    speed = race.view(state).speed_px_per_step[0]
    expected = speed + 0.1 + 5 + 1000 / milliseconds
    assert time_step.reward[0] == pytest.approx(expected, abs=1e-4)


def test_a_step_on_the_road_pays_speed_and_a_tenth():
    race = _race(RaceConfig(track=CIRCLE, reward="documented"))
    state, _ = _start(race)
    _, time_step, _ = race.step(state, _same(STRAIGHT_ON))
    assert time_step.reward[0] == pytest.approx(0.2 + 0.1, abs=1e-5)


def test_parking_costs_a_tenth_a_step():
    race = _race()
    state, _ = _start(race)
    _, time_step, _ = race.step(state, _same(STILL))
    assert time_step.reward[0] == pytest.approx(-0.1, abs=1e-5)


def test_progress_only_grows_while_a_car_laps():
    race = _race()
    steps = _episode(race, lambda state, time_step: _centred(time_step.observation))
    progress = np.array([race.view(state).progress[0] for state, *_ in steps])
    assert (np.diff(progress) > 0).all()
    assert progress[-1] == 1.0
    moved = np.diff(progress)[40:-1]
    assert moved.max() < 5 * 1.6 / 1300


def test_many_cars_together_drive_as_each_alone():
    race = _race()
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (80, 4, 2)).astype(np.float32)
    together, _ = _start(race, cars=4)
    alone = [race.reset(np.array([car], np.int32), 0)[0] for car in range(4)]
    for action in actions:
        together, time_step, events = race.step(together, action)
        for car in range(4):
            alone[car], one_step, one_events = race.step(alone[car], action[car : car + 1])
            everything = jax.tree.leaves((time_step, events))
            for many, one in zip(everything, jax.tree.leaves((one_step, one_events)), strict=True):
                np.testing.assert_array_equal(many[car], one[0])


def test_obstacles_in_the_infield_never_change_anything():
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (150, 16, 2)).astype(np.float32)
    recorded = []
    for track in (TrackConfig(), TrackConfig(obstacles=0)):
        race = _race(track=track)
        state, _ = _start(race, cars=16)
        steps = []
        for action in actions:
            state, time_step, _ = race.step(state, action)
            steps.append(time_step)
        recorded.append(steps)
    for with_obstacles, without in zip(*recorded, strict=True):
        np.testing.assert_array_equal(with_obstacles.observation, without.observation)
        np.testing.assert_array_equal(with_obstacles.is_last, without.is_last)


def test_an_obstacle_on_the_road_is_seen_and_driving_into_it_is_a_crash():
    track = TrackConfig(obstacle_placement="road", obstacles=16)
    config = RaceConfig(track=track)
    race = _race(config, seeds=range(64))
    plain = _race(RaceConfig(track=TrackConfig(obstacles=0)), seeds=range(64))
    state, time_step = _start(race, cars=64)
    plain_state, plain_step = _start(plain, cars=64)
    hits = is_nearer = 0
    circles_px = np.stack([one.obstacles_px for one in make_tracks(range(64), track)])
    for _ in range(120):
        running = ~time_step.is_last & ~plain_step.is_last
        action = _centred(plain_step.observation)
        state, time_step, events = race.step(state, action)
        plain_state, plain_step, plain_events = plain.step(plain_state, action)
        view = race.view(state)
        to_px = circles_px - np.stack([view.x_px, view.y_px], axis=-1)[:, None]
        distance_px = np.hypot(to_px[..., 0], to_px[..., 1]).min(axis=1)
        is_same = running & (state.episode == 0) & (plain_state.episode == 0)
        is_same &= (state.x == plain_state.x) & (state.y == plain_state.y)
        is_hit = is_same & events.is_crash & ~plain_events.is_crash
        assert (distance_px[is_hit] <= 10.01).all()
        assert (distance_px[is_same & ~events.is_crash] > 9.99).all()
        hits += is_hit.sum()
        seen, unseen = time_step.observation[is_same], plain_step.observation[is_same]
        assert (seen <= unseen).all()
        is_nearer += (seen < unseen).any(axis=1).sum()
    assert hits > 10
    assert is_nearer > 1000


def test_a_proportional_driver_laps_nearly_all_validation_tracks():
    race = _race(seeds=TRACK_SETS["validation"])
    state, time_step = _start(race, cars=64)
    has_lapped = np.zeros(64, bool)
    for _ in range(400):
        state, time_step, events = race.step(state, _centred(time_step.observation))
        has_lapped |= events.is_finish & (state.episode == 0)
    assert has_lapped.sum() >= 62


def test_random_tracks_follow_from_seed_car_and_episode_only():
    config = RaceConfig(time_limit_steps=2)
    race = make_race(config, make_pool(range(1000), config.track), xp=np)
    few, _ = race.reset(np.array([7, 3], np.int32), 11)
    many, _ = race.reset(np.arange(10, dtype=np.int32), 11)
    seen = []
    for _ in range(12):
        np.testing.assert_array_equal(few.track, many.track[[7, 3]])
        seen.append(int(few.track[0]))
        few, *_ = race.step(few, _same(STILL, 2))
        many, *_ = race.step(many, _same(STILL, 10))
    assert len(set(seen)) >= 3
    other, _ = race.reset(np.arange(10, dtype=np.int32), 12)
    assert (other.track != race.reset(np.arange(10, dtype=np.int32), 11)[0].track).any()


def test_random_resets_draw_all_tracks_about_equally():
    config = RaceConfig()
    race = make_race(config, make_pool(range(10), config.track), xp=np)
    state, _ = race.reset(np.arange(10_000, dtype=np.int32), 0)
    counts = np.bincount(state.track, minlength=10)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_a_pool_made_with_other_settings_is_refused():
    with pytest.raises(ConfigError, match="same TrackConfig"):
        make_race(RaceConfig(), make_pool([0], TrackConfig(points=50)))


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_observations_stay_in_the_unit_interval_even_with_wild_actions(xp):
    config = RaceConfig()
    race = make_race(config, make_pool(range(8), config.track), xp=xp, track_choice="fixed")
    step = jax.jit(race.step) if xp is jnp else race.step
    state, time_step = race.reset(np.arange(8, dtype=np.int32), 0)
    rng = np.random.default_rng(0)
    for _ in range(100):
        action = (rng.standard_normal((8, 2)) * 1e30).astype(np.float32)
        action[0] = np.nan
        state, time_step, _ = step(state, action)
        observation = np.asarray(time_step.observation)
        assert observation.dtype == np.float32
        assert (observation >= 0).all()
        assert (observation <= 1).all()
