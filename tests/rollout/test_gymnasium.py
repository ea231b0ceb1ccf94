"""Rollouts of Gymnasium environments: episodes, images and whole trainings."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.errors import ConfigError, UserError
from rlcar.evaluation.environment import make_evaluation, make_rollout, spec_of
from rlcar.evaluation.run_report import evaluate_run
from rlcar.replay import Replay
from rlcar.runs.run import find_save
from rlcar.training.loop import train
from rlcar.types import Policy, Weights
from rlcar.viewing.car_policy import load_car_policy

SETTINGS = (
    "training.cars=2",
    "training.env_steps=512",
    "training.evaluate_every_env_steps=256",
    "replay.min_env_steps=128",
)
CATCH = make_config(mode="test", environment="rlcar/Catch-v0", overrides=SETTINGS)


def _sees(time_step):
    """Returns the columns of ball and paddle, in cells."""
    cells = np.asarray(time_step.image)[:, ::2, ::2, 0] > 0
    return cells[:, :-1].any(axis=1).argmax(axis=1), cells[:, -1].argmax(axis=1)


def _act(params, carry, time_step, key, explore):
    def follow(image):
        ball, paddle = _sees(time_step._replace(image=image))
        return np.eye(3, dtype=np.float32)[np.sign(ball - paddle) + 1]

    shape = jax.ShapeDtypeStruct((time_step.reward.shape[0], 3), np.float32)
    return carry, jax.pure_callback(follow, shape, time_step.image)


EYES = Policy(lambda number: (), _act)
NATIVE = CATCH.model_copy(
    update={"environment": CATCH.environment.model_copy(update={"image_size_px": None})}
)


def test_a_policy_that_follows_the_ball_catches_it():
    shares = []
    assert make_evaluation(NATIVE, EYES, on_share=shares.append)(None).metrics == {
        "evaluation/episode_reward": 1.0,
        "evaluation/episode_steps": 7.0,
    }
    assert shares == [0.0] * 6 + [1.0]  # all balls fall equally fast


def test_blocks_continue_one_another_and_every_episode_is_whole():
    rollout = make_rollout(NATIVE, EYES)
    blocks = [rollout.collect(Weights(version, None)) for version in (3, 4)]
    trajectory = jax.tree.map(lambda *x: np.concatenate(x), *(block for block, _ in blocks))
    assert trajectory.image.shape == (64, 2, 16, 16, 1)
    assert trajectory.image.dtype == np.uint8
    assert np.unique(trajectory.weights_version).tolist() == [3, 4]
    replay = Replay(NATIVE.replay, spec_of(NATIVE), 32, seed=0)
    for block, episodes in blocks:
        replay.insert(block)
        assert (episodes.reward == 1.0).all()
        assert (episodes.steps == 7).all()
    assert replay.check_valid() == (True, "")
    # Eight records an episode: seven falls and the reset.
    assert np.flatnonzero(trajectory.is_first[:, 0]).tolist() == list(range(0, 64, 8))
    assert (trajectory.reward[trajectory.is_last] == 1.0).all()
    assert not trajectory.reward[~trajectory.is_last].any()
    sampled = replay.sample(2)
    ball = sampled.image[..., ::2, ::2, 0].any(axis=-1).argmax(axis=-1)
    assert (ball[sampled.is_first] == 0).all()


@pytest.mark.long
def test_a_training_from_pixels_runs_is_reported_and_resumes(tmp_path):
    outcome = train(CATCH, tmp_path / "run")
    assert outcome.summary["env_steps"] == 512
    report = json.loads(evaluate_run(tmp_path / "run", "validation", outcome.summary).read_text())
    assert report["environment"] == "rlcar/Catch-v0"
    assert -1.0 <= report["episode_reward"] <= 1.0
    with Image.open(tmp_path / "run" / "learning_curve.png") as picture:
        assert picture.size[0] > 800
    longer = CATCH.model_copy(
        update={"training": CATCH.training.model_copy(update={"env_steps": 640})}
    )
    again = train(longer, tmp_path / "run", find_save(tmp_path, str(tmp_path / "run"), None))
    assert again.summary["env_steps"] == 640
    with pytest.raises(UserError, match="is a run of rlcar/Catch-v0, which has no tracks"):
        load_car_policy(tmp_path / "run")


@pytest.mark.long
def test_pong_runs_from_end_to_end(tmp_path):
    config = make_config(
        mode="test",
        environment="ale_py:ALE/Pong-v5",
        overrides=[*SETTINGS, "training.env_steps=256", "environment.time_limit_steps=20"],
    )
    assert spec_of(config) == (0, 6, True, (32, 32, 1))
    outcome = train(config, tmp_path / "pong")
    assert outcome.summary["env_steps"] == 256


@pytest.mark.parametrize(
    ("algorithm", "environment"),
    # tests/envs/test_odd_environments.py trains the world model from other sizes.
    [("ppo", "CartPole-v1"), ("sac", "Pendulum-v1")],
)
def test_vectors_of_other_sizes_are_learnt_from_too(tmp_path, algorithm, environment):
    config = make_config(
        mode="test",
        algorithm=algorithm,
        environment=environment,
        overrides=[*SETTINGS, "training.env_steps=256"],
    )
    assert train(config, tmp_path / "run").summary["env_steps"] == 256


@pytest.mark.parametrize(
    ("algorithm", "environment", "words"),
    [
        ("sac", "rlcar/Catch-v0", "observations are images, which sac cannot use"),
        ("sac", "CartPole-v1", "sac cannot choose among discrete actions"),
        ("td3", "CartPole-v1", "td3 cannot choose among discrete actions"),
        ("documented", "CartPole-v1", "documented cannot choose among discrete actions"),
    ],
)
def test_an_algorithm_that_cannot_says_which_can(algorithm, environment, words):
    config = make_config(algorithm=algorithm, environment=environment)
    with pytest.raises(ConfigError, match=words):
        make_agent(config, spec_of(config))


def test_an_evaluation_ends_when_it_is_asked_to():
    assert make_evaluation(NATIVE, EYES, lambda: True)(None) is None


def test_neighbouring_seeds_have_no_environment_in_common():
    def first_balls(seed):
        config = NATIVE.model_copy(update={"seed": seed})
        trajectory, _ = make_rollout(config, EYES).collect(Weights(0, None))
        return {trajectory.image[:, car].tobytes() for car in range(2)}

    assert not first_balls(0) & first_balls(1)
