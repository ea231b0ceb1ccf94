"""What the hand-written drivers do with an observation, and on the road."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.config import make_race_config
from rlcar.config.race import RaceConfig
from rlcar.evaluation.drivers import DRIVERS, REFERENCE, make_reference
from rlcar.evaluation.laps import drive
from rlcar.track import TRACK_SETS, make_tracks
from rlcar.track.bound import lap_time_bound_steps
from rlcar.track.racing_line import racing_lines
from rlcar.types import TimeStep


def act(name: str, rays: list[float]) -> np.ndarray:
    """The action for one car with these five rays, from right to left."""
    observation = jnp.array([[*rays, 0.5]], jnp.float32)
    no = jnp.zeros(1, bool)
    time_step = TimeStep(observation, jnp.zeros(1), no, no, no)
    policy = DRIVERS[name]
    _, action = policy.act(None, policy.initial(1), time_step, None, False)
    return np.asarray(action[0])


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_steers_to_where_the_road_is_open(name):
    assert act(name, [0.1, 0.2, 0.3, 0.6, 0.9])[0] > 0.0  # left
    assert act(name, [0.9, 0.6, 0.3, 0.2, 0.1])[0] < 0.0
    assert act(name, [0.3, 0.5, 0.9, 0.5, 0.3])[0] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", DRIVERS)
def test_an_action_stays_within_its_limits(name):
    for rays in ([0.0] * 5, [1.0] * 5, [0.0, 0.0, 0.0, 0.0, 1.0]):
        assert np.all(np.abs(act(name, rays)) <= 1.0)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_laps_unseen_classic_tracks_and_never_beats_the_bound(name):
    config = RaceConfig()
    laps = drive(DRIVERS[name], None, config, "validation")
    bound_steps = lap_time_bound_steps(make_tracks(TRACK_SETS["validation"], config.track))
    is_lap = laps.lap_time_steps > 0
    assert is_lap.mean() >= 0.98
    assert np.all(laps.lap_time_steps[is_lap] >= bound_steps[is_lap])
    slowest = 2.2 if name == "careful" else 1.2
    assert laps.lap_time_steps[is_lap].mean() < slowest * bound_steps.mean()


def _lap_rates(config):
    tracks = make_tracks(TRACK_SETS["test"], config.track)
    drivers = {**DRIVERS, REFERENCE: make_reference(tuple(TRACK_SETS["test"]), config)}
    laps = {name: drive(policy, None, config, "test") for name, policy in drivers.items()}
    return {name: (one.lap_time_steps > 0).mean() for name, one in laps.items()}, laps, tracks


@pytest.mark.long
def test_the_grand_prix_tells_who_sees_the_track_from_who_only_feels_it():
    config = make_race_config("grand-prix")
    rates, laps, tracks = _lap_rates(config)
    assert rates["full_throttle"] < 0.05
    assert max(rates[name] for name in DRIVERS) < 0.6
    assert rates[REFERENCE] > 0.98
    reference = laps[REFERENCE].lap_time_steps
    bound_steps = lap_time_bound_steps(tracks, config.vehicle.top_speed_px_per_step)
    assert (reference[reference > 0] >= bound_steps[reference > 0]).all()


def test_the_driver_who_sees_the_track_laps_the_classic_world_too():
    rates, laps, tracks = _lap_rates(RaceConfig())
    assert rates[REFERENCE] == 1.0
    estimate_steps = np.mean([one.lap_time_steps for one in racing_lines(tracks, RaceConfig())])
    bound_steps = lap_time_bound_steps(tracks).mean()
    assert bound_steps < estimate_steps < laps[REFERENCE].lap_time_steps.mean() < 1.08 * bound_steps
