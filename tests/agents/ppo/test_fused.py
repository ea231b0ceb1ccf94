"""Cars and learner in one compiled call do what they do in two."""

import jax
import numpy as np
import pytest

from cluster.config import make_cluster_config
from cluster.training.loop import train as train_on_ray
from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.errors import ConfigError, UserError
from rlcar.evaluation.environment import make_rollout
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.storage.arrays import read_arrays
from rlcar.training.loop import train
from rlcar.training.trainer import Trainer

SETTINGS = ("training.cars=4", "training.block_length=16", "ppo.epochs=2")
CONFIG = make_config("ppo", "test", overrides=SETTINGS)


@pytest.mark.long
def test_two_blocks_in_one_call_are_two_blocks_one_after_the_other():
    agent = make_agent(CONFIG, SPEC)
    apart, rollout = Trainer(CONFIG, SPEC, agent), make_rollout(CONFIG, agent.policy)
    rewards = []
    for _ in range(4):
        trajectory, episodes = rollout.collect(apart.weights())
        apart.insert(trajectory)
        rewards += episodes.reward.tolist()
        apart.train()
    together, fused_rollout = Trainer(CONFIG, SPEC, agent), make_rollout(CONFIG, agent.policy)
    fused_rewards = []
    for _ in range(2):
        _, episodes = together.drive_and_train(fused_rollout, blocks=2)
        fused_rewards += episodes.reward.tolist()
    assert (together.env_steps, together.train_steps) == (apart.env_steps, apart.train_steps)
    np.testing.assert_allclose(fused_rewards, rewards, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        together.weights().params,
        apart.weights().params,
    )


def test_a_fused_training_resumes_bit_for_bit(tmp_path):
    def config(env_steps):
        overrides = [*SETTINGS, "training.blocks_per_call=2", f"training.env_steps={env_steps}"]
        overrides.append("training.evaluate_every_env_steps=1024")  # what evaluates does not train
        return make_config("ppo", "test", overrides=overrides)

    train(config(512), tmp_path / "whole")
    train(config(256), tmp_path / "legs")
    train(config(512), tmp_path / "legs", checkpoint.latest(tmp_path / "legs" / "checkpoints"))
    whole, legs = (checkpoint.latest(tmp_path / name / "checkpoints") for name in ("whole", "legs"))
    ends = [read_arrays(save.path / "state.safetensors") for save in (whole, legs)]
    assert ends[0].keys() == ends[1].keys()
    for name, array in ends[0].items():
        np.testing.assert_array_equal(array, ends[1][name], err_msg=name)


def test_who_cannot_be_fused_is_told(tmp_path):
    for algorithm in ("sac", "dreamer"):
        with pytest.raises(ConfigError, match="blocks_per_call 2 needs an on-policy algorithm"):
            make_config(algorithm=algorithm, overrides=["training.blocks_per_call=2"])
    with pytest.raises(UserError, match="train with --local"):
        train_on_ray(make_config("fused-ppo"), make_cluster_config(), tmp_path)
