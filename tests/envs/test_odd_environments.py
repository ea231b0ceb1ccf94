"""Unusual environments train or are refused with one sentence, and all are closed."""

import contextlib
import logging

import jax
import numpy as np
import pytest
from gymnasium.spaces import Box

from rlcar.agents import make_agent
from rlcar.config import EnvironmentConfig, make_config
from rlcar.envs.actions import action_mapping
from rlcar.envs.environments import Environments
from rlcar.envs.making import warn_once
from rlcar.errors import NonFiniteError, UserError
from rlcar.evaluation.environment import make_evaluation, make_rollout, spec_of
from rlcar.evaluation.run_report import evaluate_run
from rlcar.training.loop import train
from rlcar.training.profiler import profile_sim
from rlcar.types import Policy, Weights
from tests.support.odd_environments import (
    HUGE,
    IMAGES,
    LEDGER,
    REFUSED,
    REFUSED_IMAGES,
    TRAINS,
    id_of,
    open_environments,
)

SETTINGS = (
    "training.cars=2",
    "training.block_length=16",
    "training.env_steps=64",
    "training.evaluate_every_env_steps=32",
    "replay.batch_length=8",
    "replay.min_env_steps=32",
)


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """Returns the folder in which environments record that they were made and closed."""
    folder = tmp_path / "ledger"
    folder.mkdir()
    monkeypatch.setenv(LEDGER, str(folder))
    return folder


def config_of(name, algorithm="ppo", *overrides):
    settings = [*SETTINGS, *overrides]
    return make_config(
        mode="test", algorithm=algorithm, environment=id_of(name), overrides=settings
    )


def random_policy(spec):
    """The policy whose actions are uniform, for what a learner does not matter for."""

    def act(params, carry, time_step, key, explore):
        cars = time_step.reward.shape[0]
        if spec.is_discrete:
            choice = jax.random.randint(key, (cars,), 0, spec.action_size)
            return carry, jax.nn.one_hot(choice, spec.action_size)
        return carry, jax.random.uniform(key, (cars, spec.action_size), minval=-1.0)

    return Policy(lambda number: None, act)


@pytest.mark.parametrize("name", TRAINS)
def test_unusual_environments_are_driven_evaluated_and_closed(name, ledger):
    config = config_of(name, "ppo", *TRAINS[name][1])
    spec = spec_of(config)
    policy = random_policy(spec)
    with contextlib.closing(make_rollout(config, policy)) as rollout:
        trajectory, episodes = rollout.collect(Weights(0, None))
    assert trajectory.observation.shape == (16, 2, spec.observation_size)
    assert trajectory.previous_action.shape == (16, 2, spec.action_size)
    assert np.isfinite(trajectory.observation).all()
    assert np.isfinite(trajectory.reward).all()
    assert (len(episodes.steps) > 0) == (name != "endless")  # whose limit is 20 steps
    evaluation = make_evaluation(config, policy)(None)
    assert evaluation.outcomes.episodes == 16
    assert np.isfinite(list(evaluation.metrics.values())).all()
    # One to read the spaces, those of the rollout, and one for each episode of the evaluation.
    assert open_environments(ledger) == (set(), 1 + 2 + 16)


# A learner meets an environment only as its sizes and its numbers. These have many observations and
# choices, the largest numbers, a single choice, and a continuous action without a choice.
LEARNED = ("tree", "largest", "only", "constant")


@pytest.mark.parametrize("name", LEARNED)
def test_unusual_environments_are_learned_from_and_closed(name, tmp_path, ledger):
    config = config_of(name, "ppo", *TRAINS[name][1])
    outcome = train(config, tmp_path / "run")
    assert outcome.summary["env_steps"] == 64
    still_open, made = open_environments(ledger)
    assert made >= 2 + 16 + 1  # cars, episodes of the evaluation, and one to read the spaces
    assert not still_open


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_all_layouts_are_driven_evaluated_and_closed(name, ledger):
    config = config_of(name, "dreamer", "environment.image_size_px=16")
    spec = spec_of(config)
    assert spec.image_shape == (16, 16, 1 if name == "grey" else 3)
    policy = random_policy(spec)
    with contextlib.closing(make_rollout(config, policy)) as rollout:
        trajectory, _ = rollout.collect(Weights(0, None))
    assert trajectory.image.shape == (16, 2, *spec.image_shape)
    assert trajectory.image.dtype == np.uint8
    assert trajectory.image.std() > 0
    assert make_evaluation(config, policy)(None).outcomes.episodes == 16
    assert open_environments(ledger) == (set(), 1 + 2 + 16)


@pytest.mark.slow
def test_an_image_beside_the_largest_numbers_is_learned_from_and_closed(tmp_path, ledger):
    config = config_of("camera", "dreamer", "environment.image_size_px=16")
    assert train(config, tmp_path / "run").summary["env_steps"] == 64
    assert open_environments(ledger)[0] == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "name"),
    [("sac", "half"), ("td3", "huge-action"), ("documented", "double")],
)
def test_the_other_algorithms_learn_from_the_largest_numbers(algorithm, name, tmp_path, ledger):
    config = config_of(name, algorithm, *TRAINS[name][1])
    assert train(config, tmp_path / "run").summary["env_steps"] == 64
    assert open_environments(ledger)[0] == set()


@pytest.mark.parametrize("name", REFUSED | REFUSED_IMAGES)
def test_invalid_environments_are_refused_in_one_sentence_and_closed(name, tmp_path, ledger):
    words = (REFUSED | REFUSED_IMAGES)[name][1]
    algorithm = "dreamer" if name in REFUSED_IMAGES else "ppo"
    with pytest.raises(UserError, match=words) as caught:
        train(config_of(name, algorithm), tmp_path / "run")
    assert not isinstance(caught.value, NonFiniteError)  # a lower learning rate does not help
    assert "\n" not in str(caught.value)
    assert id_of(name) in str(caught.value)
    still_open, made = open_environments(ledger)
    assert made >= 1
    # An environment that fails while it is made cannot be closed.
    assert len(still_open) == (1 if name == "bad-init" else 0)


def test_the_interface_before_gymnasium_026_is_refused_in_one_sentence(tmp_path, ledger):
    with pytest.raises(
        UserError, match=r"environment Odd/old-v0 failed \(TypeError: .*seed"
    ) as end:
        train(config_of("old"), tmp_path / "run")
    assert "\n" not in str(end.value)
    assert open_environments(ledger)[0] == set()


def test_environments_that_fail_to_close_cost_one_warning(tmp_path, ledger, caplog):
    warn_once.cache_clear()
    config = config_of("bad-close")
    with caplog.at_level(logging.WARNING):
        outcome = train(config, tmp_path / "run")
        report = evaluate_run(tmp_path / "run", "validation", outcome.summary)
    assert report.exists()
    (said,) = [record for record in caplog.records if record.name == "rlcar.envs.making"]
    assert said.message == (
        "the environment Odd/bad-close-v0 failed to close (OddError: boom); nothing else is "
        "affected"
    )
    assert said.exc_info is None
    assert open_environments(ledger)[0] == set()


def test_when_one_cannot_be_made_those_before_it_are_closed(ledger):
    with pytest.raises(KeyboardInterrupt):
        Environments(EnvironmentConfig(id=id_of("third")), range(5))
    assert open_environments(ledger) == (set(), 2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_ends_a_training_its_environments_are_closed(error, tmp_path, ledger):
    def end_it(figures):
        raise error

    with pytest.raises(error):
        train(config_of("plain"), tmp_path / "run", on_evaluated=end_it)
    still_open, made = open_environments(ledger)
    assert made == 19
    assert not still_open


def test_a_profile_closes_its_environments(tmp_path, ledger):
    profile_sim(config_of("plain"), tmp_path / "trace", blocks=1)
    assert open_environments(ledger) == (set(), 3)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "limit", "expected"),
    [
        (-HUGE, HUGE, np.float32, 3.0, (-3.0, 3.0)),
        (-np.inf, np.inf, np.float32, 0.5, (-0.5, 0.5)),
        (0.0, np.inf, np.float32, 2.0, (0.0, 2.0)),
        (-np.inf, 5.0, np.float64, 7.0, (-7.0, 5.0)),
        (-1.7e308, 1.7e308, np.float64, 1e12, (-1e12, 1e12)),
        (-65504.0, 65504.0, np.float16, None, (-65504.0, 65504.0)),
        (-1e12, 1e12, np.float32, None, (-1e12, 1e12)),
        (0.1, 0.3, np.float32, None, (0.1, 0.3)),
    ],
)
def test_no_action_is_infinite_or_beyond_its_bounds(low, high, dtype, limit, expected):
    space = Box(low, high, (3,), dtype)
    config = EnvironmentConfig(id="mine", action_limit=limit)
    size, is_discrete, to_action = action_mapping(config, space)
    assert (size, is_discrete) == (3, False)
    rng = np.random.default_rng(0)
    for action in ([-1, 0, 1], [-9, 3, 1e30], *rng.uniform(-1, 1, (20, 3))):
        value = to_action(np.asarray(action, np.float32))
        assert value.dtype == dtype
        assert np.isfinite(value).all()
        assert space.contains(value)
    ends = to_action(np.asarray([-1.0, 0.0, 1.0], np.float32))
    np.testing.assert_allclose(
        ends.astype(np.float64), [expected[0], sum(expected) / 2, expected[1]], rtol=1e-3
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_never_reaches_an_environment(bad, ledger):
    config = config_of("half", "sac")
    rollout = make_rollout(config, make_agent(config, spec_of(config)).policy)
    try:
        with pytest.raises(NonFiniteError, match="the policy chose the action"):
            rollout._environments.step(np.full((2, 2), bad, np.float32))
    finally:
        rollout.close()


def test_an_action_limit_below_the_bounds_is_refused():
    config = EnvironmentConfig(id="mine", action_limit=2.0)
    with pytest.raises(UserError, match=r"entry \[0\] of its actions would lie between 5\.0 and 2"):
        action_mapping(config, Box(5.0, np.inf, (1,)))


@pytest.mark.parametrize(
    ("shape", "bounds", "image_shape"),
    [
        ((64, 64, 3), (0, 255), (64, 64, 3)),
        ((3, 64, 64), (0, 255), (64, 64, 3)),
        ((1, 32, 32), (0, 255), (32, 32, 1)),
        ((4, 84, 84), (0, 255), (64, 64, 4)),
        ((84, 84, 12), (0, 255), (64, 64, 12)),
        ((210, 160), (0, 255), (64, 64, 1)),
        ((16, 16, 1), (0, 255), (16, 16, 1)),
        ((6, 6), (0, 2), None),
        ((6, 6), (0, 255), None),
        ((7, 7, 3), (0, 255), None),
        ((64, 64, 3), (0, 1), None),
        ((64, 64, 13), (0, 255), None),
        ((3, 64, 3), (0, 255), None),
        ((4, 64, 64, 3), (0, 255), None),
        ((300,), (0, 255), None),
    ],
)
def test_images_are_recognised_as_documented(shape, bounds, image_shape):
    from rlcar.envs.adapter import make_adapter
    from tests.support.odd_environments import Odd

    space = Box(*bounds, shape, np.uint8)
    spec = make_adapter(EnvironmentConfig(id="mine"), Odd(space)).spec
    assert spec.image_shape == image_shape
    assert spec.observation_size == (0 if image_shape else int(np.prod(shape)))


def test_channels_first_gives_the_same_image_as_channels_last():
    from rlcar.envs.adapter import make_adapter
    from tests.support.odd_environments import Odd

    last = np.random.default_rng(0).integers(256, size=(40, 30, 3), dtype=np.uint8)
    images = []
    for array in (last, np.moveaxis(last, -1, 0)):
        space = Box(0, 255, array.shape, np.uint8)
        images.append(make_adapter(EnvironmentConfig(id="mine"), Odd(space)).image(array))
    np.testing.assert_array_equal(*images)
