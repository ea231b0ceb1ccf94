"""What the hand-written drivers do with an observation, and on the road."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.config import RaceConfig
from rlcar.drivers import DRIVERS
from rlcar.evaluate import drive
from rlcar.track import TRACK_SETS, make_tracks
from rlcar.track.bound import lap_time_bound_steps
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
def test_a_driver_laps_unseen_tracks_and_never_beats_the_bound(name):
    config = RaceConfig()
    laps = drive(DRIVERS[name], None, config, "validation")
    bound_steps = lap_time_bound_steps(make_tracks(TRACK_SETS["validation"], config.track))
    is_lap = laps.lap_time_steps > 0
    assert is_lap.mean() >= 0.98
    assert np.all(laps.lap_time_steps[is_lap] >= bound_steps[is_lap])
    assert laps.lap_time_steps[is_lap].mean() < 1.2 * bound_steps.mean()
