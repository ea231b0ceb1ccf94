"""Hidden conditions of an episode: start of the rival, delay, and errors of the sensors."""

import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.errors import ConfigError
from rlcar.sim import make_race
from rlcar.track import make_pool, make_tracks

CARS = 200
PLAIN = {"delay_steps": {"low": 0.0, "high": 0.0}}
CLEAN = {"noise_px": {"low": 0.0, "high": 0.0}, "dropout": {"low": 0.0, "high": 0.0}}


def _race(changes, rival_lines=None, seeds=range(20_000, 20_008)):
    config = make_race_config("grand-prix", **changes)
    pool = make_pool(seeds, config.track)
    race = make_race(config, pool, xp=np, track_choice="fixed", rival_lines=rival_lines)
    return config, race, race.reset(np.arange(CARS, dtype=np.int32), 0)


def test_the_rival_keeps_its_pace_on_the_road_and_is_seen_and_hit():
    config, race, (state, _) = _race({})
    tracks = make_tracks(range(20_000, 20_008), config.track)
    before = race.view(state).rival_px
    action = np.tile(np.array([0.0, -1.0], np.float32), (CARS, 1))
    state, *_ = race.step(state, action)
    after = race.view(state).rival_px
    hop_px = np.linalg.norm(after - before, axis=1)
    np.testing.assert_allclose(hop_px, config.rival.pace_px_per_step, rtol=0.1)
    for car in range(8):
        gap_px = np.linalg.norm(tracks[car].centre_px - after[car], axis=1).min()
        assert gap_px < tracks[car].half_width_px
    assert (
        len({tuple(start) for start in after[::8].round().tolist()}) > 10
    )  # other starts, one track
    crashes = 0
    for _ in range(700):  # parked on the middle of the road, while the rival comes by
        state, _, events = race.step(state, action)
        crashes += int(events.is_crash.sum())
    assert crashes > 0


def test_the_rival_drives_a_given_line():
    line = np.tile([[400.0 * 32, 300.0 * 32]], (50, 1))
    _, race, (state, _) = _race({}, rival_lines=[line] * 8)
    np.testing.assert_allclose(race.view(state).rival_px, [[400.0, 300.0]] * CARS)


def test_lines_that_do_not_fit_are_refused():
    line = np.zeros((5, 2))
    with pytest.raises(ConfigError, match="3 lines of a rival for 8 tracks"):
        _race({}, rival_lines=[line] * 3)
    with pytest.raises(ConfigError, match="on track 1 is empty, not finite"):
        _race({}, rival_lines=[line, line * np.nan, *[line] * 6])


def test_an_action_acts_after_its_own_cars_delay():
    _, race, (state, _) = _race({"rival": None, "sensors": CLEAN})
    delay = race.view(state).delay_steps
    assert set(delay) == {0, 1, 2, 3}
    full = np.tile(np.array([0.0, 1.0], np.float32), (CARS, 1))
    first_move = np.full(CARS, -1)
    for step in range(5):
        state, *_ = race.step(state, full)
        moves = race.view(state).speed_px_per_step > 0
        first_move = np.where((first_move < 0) & moves, step, first_move)
    np.testing.assert_array_equal(first_move, delay)


def test_noise_and_drop_outs_are_as_large_as_they_are_set():
    clean = {"rival": None, "vehicle": PLAIN, "sensors": CLEAN}
    truth = _race(clean)[2][1].observation[:, :5] * 150
    noise = {**CLEAN, "noise_px": {"low": 10.0, "high": 10.0}}
    noisy = _race({**clean, "sensors": noise})[2][1].observation[:, :5] * 150
    error_px = (noisy - truth)[(truth > 12) & (truth < 138)]
    assert np.abs(error_px).max() <= 10.01
    assert abs(error_px.mean()) < 1.0
    assert error_px.std() == pytest.approx(10 / np.sqrt(3), rel=0.1)
    dropout = {**CLEAN, "dropout": {"low": 0.3, "high": 0.3}}
    dropped = _race({**clean, "sensors": dropout})[2][1].observation[:, :5] * 150
    is_dropped = (dropped == 150) & (truth < 150)
    assert is_dropped.sum() / (truth < 150).sum() == pytest.approx(0.3, abs=0.06)
    np.testing.assert_array_equal(dropped[~is_dropped], truth[~is_dropped])
