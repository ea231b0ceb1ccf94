"""Dreams: consistent, scored against what happened, refused where there are none."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rlcar.agents.dreamer.dream import make_dreamer
from rlcar.agents.dreamer.rssm import initial_state
from rlcar.agents.dreams import Dream
from rlcar.config import dump_config, make_config
from rlcar.errors import CheckpointError, UserError
from rlcar.sim import SPEC
from rlcar.viewing.dream import Driven, _errors, dream_run
from tests.support.tiny_run import make_tiny_config, tiny_agent, trained

CONFIG = make_tiny_config()


@pytest.fixture(scope="module")
def dreams():
    params = tiny_agent(CONFIG).learner.init(0).params
    return make_dreamer(CONFIG.dreamer, SPEC), params, initial_state(CONFIG.dreamer.world_model, 3)


def test_following_the_actions_that_were_imagined_dreams_the_same(dreams):
    dreamer, params, state = dreams
    for key in (None, jax.random.PRNGKey(1)):
        imagined = dreamer.imagine(params, state, 5, key)
        followed = dreamer.follow(params, state, imagined.action, key)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), imagined, followed)
    assert imagined.observation.shape == (5, 3, SPEC.observation_size)
    assert ((imagined.continues >= 0) & (imagined.continues <= 1)).all()


def test_a_later_action_does_not_change_an_earlier_step(dreams):
    dreamer, params, state = dreams
    action = jnp.zeros((6, 3, SPEC.action_size))
    plain = dreamer.follow(params, state, action, None)
    other = dreamer.follow(params, state, action.at[4].set(1.0), None)
    np.testing.assert_array_equal(plain.observation[:4], other.observation[:4])
    assert not np.array_equal(plain.observation[4], other.observation[4])


def test_errors_count_only_the_episode_that_was_dreamt_of():
    steps, cars = 12, 2
    observation = np.full((steps, cars, SPEC.observation_size), 0.5, np.float32)
    is_first = np.zeros((steps, cars), bool)
    is_first[4, 0] = True  # from here on the first car's road is another one
    observation[4:, 0] = 0.9
    nothing = np.zeros((steps, cars))
    driven = Driven(
        observation,
        nothing,
        is_first,
        np.roll(is_first, -1, axis=0),
        np.roll(is_first, -1, axis=0),
        np.zeros((steps, cars, 2)),
        None,
    )
    dream = Dream(
        np.full((5, cars, SPEC.observation_size), 0.4),
        np.zeros((5, cars)),
        np.ones((5, cars)),
        np.zeros((5, cars, 2)),
    )
    errors = _errors(driven, [dream], np.array([1]), 5)
    np.testing.assert_allclose(errors["rays_error_pct"], 10.0, rtol=1e-5)
    np.testing.assert_allclose(errors["rays_stale_error_pct"], 0.0, atol=1e-6)
    # The end at the third step counts for one of two cars at the second step of the dream.
    np.testing.assert_allclose(errors["continue_error"], [0.0, 0.5, 0.0, 0.0, 0.0])
    assert (errors["ends"], errors["end_foreseen_share"]) == (1, 0.0)


def test_a_run_leaves_figures_a_picture_and_a_film(tmp_path):
    folder = shutil.copytree(trained()[0], tmp_path / "tiny")
    report = dream_run(folder, "validation", 6)
    assert json.loads((folder / "dream.json").read_text()) == report
    for name in ("rays_error_pct", "speed_error_pct", "reward_error", "continue_error"):
        assert len(report[name]) == 6
        assert all(math.isfinite(value) and value >= 0 for value in report[name])
    assert report["checkpoint_env_steps"] == 768
    with Image.open(folder / "dream.png") as picture, Image.open(folder / "dream.gif") as film:
        assert picture.size[0] > 800
        assert film.n_frames >= 6


def test_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="1 to 200 steps"):
        dream_run(tmp_path, "validation", 0)
    with pytest.raises(UserError, match="not a run"):
        dream_run(tmp_path, "validation", 5)
    folder = shutil.copytree(trained()[0], tmp_path / "ppo")
    (folder / "config.json").write_text(dump_config(make_config("ppo")))
    with pytest.raises(UserError, match="trained ppo, which has no world model"):
        dream_run(folder, "validation", 5)
    empty = shutil.copytree(trained()[0], tmp_path / "empty")
    shutil.rmtree(empty / "checkpoints")
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        dream_run(empty, "validation", 5)
