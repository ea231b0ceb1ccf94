"""The page shows the predictions of the world model beside the real readings."""

import numpy as np
import pytest

from serve.live.car import Car, open_course
from serve.live.dream import DREAM_STEPS, RunDreams, open_dreamer
from serve.live.run_follower import RunFollower
from tests.serve.live.live_page import save_run


@pytest.fixture(scope="module")
def dreams(tmp_path_factory):
    return RunDreams(RunFollower(save_run(tmp_path_factory.mktemp("runs") / "begun", 128)))


def test_a_run_without_a_save_has_no_dreams(tmp_path):
    assert RunDreams(RunFollower(tmp_path)).newest() is None


def test_a_dream_starts_at_the_observation_and_shows_where_it_would_lead(dreams, tiny_config):
    model = dreams.newest()
    assert dreams.newest() is None  # there is none that is newer
    car = Car(open_course(tiny_config.race, range(10_000, 10_002)))
    dreamer = open_dreamer(*model, car)
    at_start = dreamer.dream(car)
    assert at_start.shape == (DREAM_STEPS, 16)
    dreamt, real = at_start[:, 3:8], at_start[:, 8:13]
    assert np.isfinite(dreamt).all()
    assert (dreamt >= 0.0).all()
    assert (dreamt <= 1.0).all()
    goes_on = at_start[:, 15]
    assert (np.diff(goes_on) <= 0.0).all()
    # The first real row contains the readings after the first predicted action.
    action = np.asarray(dreamer._imagine(dreamer._params, dreamer._carry.state, 1, None).action)[
        0, 0
    ]
    car.drive(action)
    np.testing.assert_array_equal(real[0], np.float32(car.rays))
    dreamer.record_action(action)
    dreamer.observe(car.time_step)
    assert not np.array_equal(dreamer.dream(car)[:, 3:8], dreamt)
    assert np.array_equal(dreamer.dream(car), dreamer.dream(car), equal_nan=True)


def test_newer_parameters_dream_something_else(dreams, tiny_config, tmp_path):
    config, params = RunDreams(dreams._follower).newest()
    car = Car(open_course(tiny_config.race, range(10_000, 10_002)))
    dreamer = open_dreamer(config, params, car)
    before = dreamer.dream(car)
    dreamer.set_params({**params, "world_model": _scaled(params["world_model"])})
    assert not np.array_equal(dreamer.dream(car)[:, 3:8], before[:, 3:8])


def _scaled(tree):
    return {name: {key: 1.5 * leaf for key, leaf in part.items()} for name, part in tree.items()}
