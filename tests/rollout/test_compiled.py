"""Rollouts of the race: trajectories for the replay buffer, and states that can be saved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.errors import CheckpointError
from rlcar.evaluation.environment import make_rollout as make_any_rollout
from rlcar.evaluation.environment import spec_of
from rlcar.rollout.compiled import Rollout
from rlcar.types import Policy, TimeStep, Trajectory, Weights
from tests.support.tiny_run import make_tiny_config

T, N, BLOCKS = 32, 4, 20
CONFIG = make_tiny_config("race.time_limit_steps=150")
WEIGHTS = Weights(7, {"throttle": jnp.float32(1.0)})


def _act(params, carry, time_step: TimeStep, key, explore):
    """Steers at random; its carry counts the steps and must therefore be saved as well."""
    steering = jax.random.uniform(key, (len(time_step.reward),), minval=-1.0)
    throttle = jnp.full_like(steering, params["throttle"]) - 0.001 * (carry % 7)
    return carry + 1, jnp.stack([steering, throttle], axis=1)


RANDOM_DRIVER = Policy(lambda cars: jnp.zeros(cars), _act)


def make_rollout(first_car: int = 0, restart_id: int = 0) -> Rollout:
    rollout = make_any_rollout(CONFIG, RANDOM_DRIVER, first_car, restart_id)
    assert isinstance(rollout, Rollout)
    return rollout


def _joined(blocks: list[Trajectory]) -> Trajectory:
    return jax.tree.map(lambda *parts: np.concatenate(parts), *blocks)


@pytest.fixture(scope="module")
def drive():
    """Returns a long trajectory, its episodes, and the state after block 2."""
    rollout, blocks, episodes = make_rollout(), [], []
    for block in range(BLOCKS):
        if block == 2:
            saved = rollout.saved()
        trajectory, ended = rollout.collect(WEIGHTS)
        blocks.append(trajectory)
        episodes.append(ended)
    return blocks, episodes, saved


def _assert_same(left: Trajectory, right: Trajectory):
    for name, a, b in zip(Trajectory._fields, left, right, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_block_has_the_shapes_and_types_that_the_replay_wants(drive):
    block = drive[0][0]
    expected = Trajectory(
        ((T, N, 6), "float32"),
        ((T, N, 2), "float32"),
        ((T, N), "float32"),
        ((T, N), "bool"),
        ((T, N), "bool"),
        ((T, N), "bool"),
        ((T, N), "int32"),
    )
    assert jax.tree.map(lambda x: (x.shape, str(x.dtype)), block) == expected
    assert (block.weights_version == 7).all()
    assert drive[1][0].env_steps == T * N


def test_the_previous_action_is_the_one_that_led_to_the_step():
    # The throttle is told apart by the step that chose it: 1 - 0.001 (step mod 7).
    rollout = make_rollout()
    throttle = np.concatenate([rollout.collect(WEIGHTS)[0].previous_action for _ in range(2)])[
        :, :, 1
    ]
    assert (throttle[0] == 0.0).all()
    chosen_at = np.arange(2 * T - 1) % 7
    expected = np.repeat((1.0 - 0.001 * chosen_at)[:, None], N, axis=1)
    np.testing.assert_allclose(throttle[1:], expected, atol=1e-6)


def test_the_first_step_of_all_is_first_and_each_step_after_a_last_one_is_first(drive):
    trajectory = _joined(drive[0])
    assert trajectory.is_last.any()
    assert trajectory.is_first[0].all()
    np.testing.assert_array_equal(trajectory.is_first[1:], trajectory.is_last[:-1])
    assert (trajectory.reward[trajectory.is_first] == 0.0).all()
    assert not (trajectory.is_terminal & ~trajectory.is_last).any()


def test_the_rewards_and_steps_of_an_episode_are_those_in_the_trajectory(drive):
    trajectory = _joined(drive[0])
    expected = []
    for car in range(N):
        start = 0
        for last in np.flatnonzero(trajectory.is_last[:, car]):
            reward = trajectory.reward[start : last + 1, car].sum(dtype=np.float64)
            expected.append((last - start, round(float(reward), 3)))
            start = last + 1
    reported = [
        (int(steps), round(float(reward), 3))
        for ended in drive[1]
        for steps, reward in zip(ended.steps, ended.reward, strict=True)
    ]
    # An episode that ends right after a block is reported with it and recorded in the next one.
    assert len(expected) > N
    for steps, reward in expected:
        match = [one for one in reported if one[0] == steps and abs(one[1] - reward) < 2e-3]
        assert match, (steps, reward)
        reported.remove(match[0])
    assert len(reported) <= N


def test_two_drives_of_one_seed_are_equal_bit_for_bit(drive):
    rollout = make_rollout()
    for block in drive[0][:3]:
        _assert_same(rollout.collect(WEIGHTS)[0], block)


def test_a_saved_drive_goes_on_bit_for_bit_in_another_process_s_cars(drive):
    rollout = make_rollout(first_car=64, restart_id=3)
    rollout.collect(WEIGHTS)
    rollout.restore(drive[2])
    for block in drive[0][2:6]:
        _assert_same(rollout.collect(WEIGHTS)[0], block)


def test_what_was_saved_does_not_change_with_further_driving():
    rollout = make_rollout()
    rollout.collect(WEIGHTS)
    saved = rollout.saved()
    before = {name: array.copy() for name, array in saved.items()}
    rollout.collect(WEIGHTS)
    for name, array in before.items():
        np.testing.assert_array_equal(saved[name], array)


def test_the_cars_of_other_settings_are_refused(drive):
    saved = {name: array[:2] if array.ndim else array for name, array in drive[2].items()}
    with pytest.raises(CheckpointError, match=r"do not fit this run.*training\.cars"):
        make_rollout().restore(saved)


@pytest.mark.parametrize("other", [{"first_car": 4}, {"restart_id": 1}], ids=["cars", "restart_id"])
def test_other_cars_and_a_later_epoch_drive_other_races(drive, other):
    block = make_rollout(**other).collect(WEIGHTS)[0]
    tracks_differ = (block.observation[0] != drive[0][0].observation[0]).any(axis=-1)
    assert tracks_differ.all()
    assert (block.previous_action[1:] != drive[0][0].previous_action[1:]).any()


@pytest.mark.parametrize("environment", [None, "Pendulum-v1"])
def test_td3_explores_evenly_until_its_first_train_step_and_near_its_actor_afterwards(environment):
    config = make_config("td3", mode="test", environment=environment)
    spec = spec_of(config)
    agent = make_agent(config, spec)
    params = agent.learner.policy_params(agent.learner.init(0))

    def explored(version: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns actions `[M, A]`, and those of the actor without exploration."""
        drive = make_any_rollout(config, agent.policy)
        block = drive.collect(Weights(version, params))[0]
        seen = block.observation[:-1].reshape(-1, spec.observation_size)
        now = TimeStep(seen, *[np.zeros(len(seen))] * 4)
        meant = agent.policy.act(params, (), now, jax.random.PRNGKey(0), False)[1]
        acted = block.previous_action[1:].reshape(-1, spec.action_size)
        return acted, meant

    random_actions, _ = explored(0)
    np.testing.assert_allclose(random_actions.mean(axis=0), 0.0, atol=0.15)
    np.testing.assert_allclose(
        random_actions.std(axis=0), 1 / np.sqrt(3), atol=0.06
    )  # of a uniform distribution
    assert len(np.unique(random_actions)) > 0.9 * random_actions.size
    acted, meant = explored(1)
    # The noise of Fujimoto et al. (2018), Sec. 6.1.
    np.testing.assert_allclose((acted - meant).std(axis=0), 0.1, rtol=0.15)
