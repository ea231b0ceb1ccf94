"""Training and evaluation see the same episodes of the same seeds, and reward the same actions."""

from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.envs.vector import make_vector
from rlcar.evaluation.environment import make_rollout, spec_of
from rlcar.evaluation.environment.gymnasium import make_episodes
from rlcar.rollout.compiled import restart_seed
from rlcar.types import Policy, Weights

CARS, STEPS = 3, 64
SETTINGS = [
    "environment.frame_stack=3",
    "environment.image_size_px=32",
    "environment.time_limit_steps=40",
    "environment.atari.reward_clipping=false",
    f"training.cars={CARS}",
    f"training.block_length={STEPS}",
]
CATCH, ATARI = "rlcar/Catch-v0", "ALE/Boxing-v5"


def config_of(environment, *overrides):
    return make_config(algorithm="ppo", environment=environment, overrides=[*SETTINGS, *overrides])


def training_seeds(config):
    """Returns the seeds of the environments of a rollout that begins."""
    seeds = [np.random.SeedSequence([restart_seed(config.seed, 0), index]) for index in range(CARS)]
    return [int(seed.generate_state(1)[0] >> 1) for seed in seeds]


def by_every_pixel(actions):
    """A policy whose action changes with each pixel of each frame, and never with `explore`."""

    def act(params, carry, time_step, key, explore):
        pixels = time_step.image.reshape(len(time_step.image), -1).astype(jnp.uint32)
        weights = jnp.arange(pixels.shape[1], dtype=jnp.uint32) % 251 + 1
        return carry, jax.nn.one_hot((pixels * weights[None]).sum(axis=1) % 7919 % actions, actions)

    return Policy(lambda number: (), act)


@pytest.mark.parametrize("environment", [CATCH, ATARI])
def test_equal_seeds_and_actions_give_equal_time_steps(environment):
    driven = config_of(environment).driven_environment
    rng = np.random.default_rng(0)
    with (
        closing(make_vector(driven, [4, 5], is_training=True)) as training,
        closing(make_vector(driven, [4, 5])) as evaluation,
    ):
        number = training.spec.action_size
        for _ in range(STEPS):
            for one, other in zip(training.now, evaluation.now, strict=True):
                np.testing.assert_array_equal(one, other)
            action = np.eye(number, dtype=np.float32)[rng.integers(number, size=2)]
            training.step(action)
            evaluation.step(action)


@pytest.mark.parametrize("environment", [CATCH, ATARI])
def test_an_episode_is_the_same_in_training_and_in_evaluation(environment):
    config = config_of(environment)
    policy = by_every_pixel(spec_of(config).action_size)
    with closing(make_rollout(config, policy)) as rollout:
        trajectory, _ = rollout.collect(Weights(0, None))
    episodes = make_episodes(config, policy)(None, training_seeds(config))
    for car in range(CARS):
        end = int(trajectory.is_last[:, car].argmax())
        assert episodes.steps[car] == end > 0
        assert episodes.reward[car] == trajectory.reward[: end + 1, car].sum()
    # The policy does not always choose the same action, and an episode follows another.
    assert len(np.unique(trajectory.previous_action.argmax(axis=2))) > 1
    assert trajectory.is_first[1:].any()


def test_the_most_probable_action_is_the_one_that_is_sampled_most():
    config = config_of(CATCH)
    agent = make_agent(config, spec_of(config))
    params = agent.learner.policy_params(agent.learner.init(3))
    # Larger outputs than those of an untrained network, whose actions are all equally probable.
    params["networks"]["policy_out"]["w"] *= 300.0
    with closing(make_vector(config.driven_environment, range(8))) as environments:
        now = environments.now
    noise = np.random.default_rng(0).integers(0, 256, now.image.shape).astype(np.uint8)
    now = now._replace(image=noise)
    carry = agent.policy.initial(8)
    act = jax.jit(agent.policy.act, static_argnums=4)
    _, mode = act(params, carry, now, jax.random.PRNGKey(0), False)
    samples = sum(act(params, carry, now, jax.random.PRNGKey(i), True)[1] for i in range(200))
    clear = np.sort(samples, axis=1)
    is_clear = clear[:, -1] - clear[:, -2] > 60
    assert is_clear.any()
    np.testing.assert_array_equal(
        np.argmax(samples, axis=1)[is_clear], np.argmax(mode, axis=1)[is_clear]
    )
