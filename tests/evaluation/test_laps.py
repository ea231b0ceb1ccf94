"""Driving and scoring: against the simulator stepped by hand, and against hand-made laps."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rlcar.config.race import RaceConfig
from rlcar.errors import ConfigError
from rlcar.evaluation.drivers import full_throttle
from rlcar.evaluation.laps import (
    Laps,
    drive,
    make_evaluator,
    report,
    score_laps,
    track_seeds,
    write_report,
)
from rlcar.evaluation.table import print_table
from rlcar.sim import make_race
from rlcar.track import make_pool, make_tracks
from rlcar.track.bound import lap_time_bound_steps
from rlcar.types import Policy, TimeStep

SEEDS = (10_000, 10_001, 10_002, 10_003)


def constant_throttle(throttle: float) -> Policy:
    def act(params, carry, time_step, key, explore):
        steering = jnp.zeros(len(time_step.reward), jnp.float32)
        return carry, jnp.stack([steering, jnp.full_like(steering, throttle)], axis=1)

    return Policy(lambda number_of_cars: None, act)


def hand_made_laps(lap_time_steps: list[int], is_crash: list[bool]) -> Laps:
    count = len(lap_time_steps)
    is_lap = np.array(lap_time_steps) > 0
    line = np.full((3, count), 400.0, np.float32)
    return Laps(
        lap_time_steps=np.array(lap_time_steps, np.int32),
        is_crash=np.array(is_crash),
        progress=np.where(is_lap, 1.0, 0.25).astype(np.float32),
        steps=np.full(count, 2, np.int32),
        smoothness=np.full(count, 0.5, np.float32),
        reward=np.ones(count, np.float32),
        x_px=line,
        y_px=line,
        speed_px_per_step=line * 0,
    )


def test_an_evaluation_compares_lap_times_with_their_bounds():
    laps = hand_made_laps([300, -1], [False, True])
    metrics = score_laps(laps, np.array([200, 250])).metrics
    assert metrics["evaluation/over_bound_pct"] == pytest.approx((50.0 + 300.0) / 2)
    assert "evaluation/over_bound_pct" not in score_laps(laps).metrics


@pytest.fixture(scope="module")
def tracks():
    return make_tracks(SEEDS, RaceConfig().track)


@pytest.fixture(scope="module")
def laps():
    return drive(full_throttle, None, RaceConfig(), SEEDS)


def test_driving_is_stepping_the_race_until_each_first_episode_ends(laps):
    config = RaceConfig()
    race = make_race(config, make_pool(SEEDS, config.track), track_choice="fixed")
    state, time_step = race.reset(jnp.arange(len(SEEDS), dtype=jnp.int32), 0)

    @jax.jit
    def advance(state, time_step):
        _, action = full_throttle.act(None, None, time_step, None, False)
        return race.step(state, action)

    for step in range(1, int(laps.steps.max()) + 1):
        state, time_step, events = advance(state, time_step)
        ends_now = laps.steps == step
        assert np.all(np.asarray(time_step.is_last)[ends_now])
        np.testing.assert_array_equal(
            np.asarray(events.lap_time_steps)[ends_now], laps.lap_time_steps[ends_now]
        )
        is_driving = laps.steps >= step
        np.testing.assert_array_equal(
            np.asarray(race.view(state).x_px)[is_driving], laps.x_px[step][is_driving]
        )


def test_a_line_starts_on_the_start_point_and_is_blank_after_the_end(laps, tracks):
    starts_px = np.stack([track.centre_px[0] for track in tracks])
    np.testing.assert_allclose(np.stack([laps.x_px[0], laps.y_px[0]], 1), starts_px, atol=0.1)
    for car, steps in enumerate(laps.steps):
        assert np.all(np.isfinite(laps.x_px[: steps + 1, car]))
        assert np.all(np.isnan(laps.x_px[steps + 1 :, car]))


def test_the_kept_steps_are_what_the_policy_saw_did_and_earned(laps):
    kept = drive(full_throttle, None, RaceConfig(), SEEDS, keeps_steps=True)
    driven = kept.driven
    assert driven is not None
    np.testing.assert_array_equal(kept.x_px, laps.x_px)
    np.testing.assert_allclose(np.nansum(driven.reward, axis=0), laps.reward, rtol=1e-6)
    for car, steps in enumerate(laps.steps):
        observation = driven.observation[:steps, car]
        speed = laps.speed_px_per_step[:steps, car] / RaceConfig().vehicle.top_speed_px_per_step
        np.testing.assert_allclose(observation[:, -1], speed, atol=1e-6)
        step = TimeStep(observation, *[None] * (len(TimeStep._fields) - 1))
        _, action = full_throttle.act(None, None, step, None, False)
        np.testing.assert_allclose(driven.action[:steps, car], action, atol=1e-6)
        assert np.isnan(driven.observation[steps:, car]).all()


def test_a_lap_does_not_depend_on_the_other_tracks(laps):
    alone = drive(full_throttle, None, RaceConfig(), SEEDS[2:3])
    assert alone.lap_time_steps[0] == laps.lap_time_steps[2]
    np.testing.assert_array_equal(alone.x_px[:, 0], laps.x_px[: alone.steps[0] + 1, 2])


def test_a_car_that_never_steers_crashes_on_its_way():
    crashed = drive(constant_throttle(1.0), None, RaceConfig(), SEEDS)
    assert np.all(crashed.is_crash)
    assert np.all(crashed.lap_time_steps == 0)
    assert np.all((crashed.progress > 0.0) & (crashed.progress < 0.5))
    assert len(crashed.x_px) == crashed.steps.max() + 1  # the loop stops with the last car


def test_a_car_that_stands_still_runs_out_of_time():
    config = RaceConfig(time_limit_steps=20)
    stood = drive(constant_throttle(0.0), None, config, SEEDS)
    np.testing.assert_array_equal(stood.steps, 20)
    np.testing.assert_array_equal(stood.progress, 0.0)
    assert not stood.is_crash.any()


def test_smoothness_is_the_mean_change_of_steering_and_memory_is_carried():
    def act(params, carry, time_step, key, explore):
        steering = jnp.where(carry % 2 == 0, -params, params)
        return carry + 1, jnp.stack([steering, jnp.zeros_like(steering)], axis=1)

    wobble = Policy(lambda number_of_cars: jnp.zeros(number_of_cars, jnp.int32), act)
    laps = drive(wobble, 0.25, RaceConfig(time_limit_steps=9), SEEDS[:2])
    np.testing.assert_allclose(laps.smoothness, 0.5)


def test_new_parameters_do_not_compile_again():
    traces = []

    def act(params, carry, time_step, key, explore):
        traces.append(explore)
        steering = jnp.zeros(len(time_step.reward), jnp.float32)
        return carry, jnp.stack([steering, steering + params], axis=1)

    evaluate = make_evaluator(
        Policy(lambda number_of_cars: None, act), RaceConfig(time_limit_steps=5), SEEDS[:2]
    )
    slow, fast = evaluate(jnp.float32(0.1)), evaluate(jnp.float32(0.2))
    assert set(traces) == {False}
    first = len(traces)
    evaluate(jnp.float32(0.3))
    assert len(traces) == first
    assert np.all(fast.speed_px_per_step[-1] > slow.speed_px_per_step[-1])


def test_a_failure_is_charged_the_time_limit(tracks):
    bound_steps = lap_time_bound_steps(tracks)
    made = hand_made_laps([300, 250, 0, 0], [False, False, True, False])
    scored = report({"made": made}, tracks, RaceConfig())
    charged = np.array([300, 250, 1000, 1000])
    assert scored["over_bound_pct"] == pytest.approx(100 * np.mean(charged / bound_steps - 1))
    assert scored["lap_rate"] == 0.5
    assert scored["lap_time_steps"] == 275.0
    assert scored["drivers"]["made"]["crash_rate"] == 0.25
    assert scored["drivers"]["made"]["timeout_rate"] == 0.25
    assert scored["drivers"]["made"]["progress"] == 0.625


def test_an_interval_holds_the_mean_and_is_the_same_each_time(tracks):
    made = hand_made_laps([300, 250, 0, 0], [False, False, True, False])
    first, again = (
        report({"made": made}, tracks, RaceConfig())["drivers"]["made"] for _ in range(2)
    )
    for name in ("lap_rate", "over_bound_pct"):
        low, high = first[f"{name}_interval"]
        assert low < first[name] < high
        assert first[f"{name}_interval"] == again[f"{name}_interval"]


def test_a_written_report_is_json_with_its_pictures(tmp_path, laps, tracks):
    made = hand_made_laps([0, 0, 0, 0], [True] * 4)._replace(
        smoothness=np.full(4, np.nan, np.float32)
    )
    scored = report(
        {"made": made, "full_throttle": laps}, tracks, RaceConfig(), track_set="validation"
    )
    rows = [{"env_steps": 0, "episode/reward": float("nan")}]
    path = write_report(tmp_path / "run", scored, made, tracks, rows)
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["lap_rate"] == 0.0
    assert read["lap_time_steps"] is None
    assert read["drivers"]["made"]["smoothness"] is None
    assert read["drivers"]["full_throttle"]["lap_rate"] == 1.0
    assert [one["seed"] for one in read["drivers"]["made"]["per_track"]] == list(SEEDS)
    assert {one.name for one in path.parent.iterdir()} == {
        "report.json",
        "laps.png",
        "best.png",
        "learning_curve.png",
    }


def test_the_table_names_every_driver_and_the_bound(laps, tracks):
    text = io.StringIO()
    scored = report({"dreamer": laps, "full_throttle": laps}, tracks, RaceConfig())
    print_table(scored, Console(file=text, width=120))
    for word in ("dreamer", "full_throttle", "lower bound", "100.0  100–100"):
        assert word in text.getvalue()


def test_an_unknown_track_set_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'validation'"):
        track_seeds("validaton", RaceConfig().track)
