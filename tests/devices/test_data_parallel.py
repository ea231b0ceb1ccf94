"""A train step over several devices gives the same update, each on its part of the batch."""

import json
import os
import subprocess
import sys

import jax
import pytest

from rlcar.config import make_config
from rlcar.devices.data_parallel import over_devices
from rlcar.errors import ConfigError

# The number of CPU devices must be set before JAX starts, so the program is a process of its own.
PROGRAM = """
import json, sys
import jax, numpy as np
from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.sim import SPEC
from rlcar.training.trainer import Trainer
from rlcar.types import Trajectory

T, N = 32, 8

def block(seed):
    random = np.random.default_rng(seed)
    is_last = np.zeros((T, N), bool)
    is_last[10] = True
    is_first = np.roll(is_last, 1, axis=0)
    reward = np.where(is_first, 0.0, random.random((T, N))).astype(np.float32)
    observation = random.random((T, N, SPEC.observation_size), np.float32)
    action = random.uniform(-1, 1, (T, N, SPEC.action_size)).astype(np.float32)
    zeros = np.zeros((T, N), np.int32)
    return Trajectory(observation, action, reward, is_first, is_last, is_last, zeros)

found = {}
for devices in (1, 2, 4):
    overrides = [f"training.learner_devices={devices}", f"algorithm={sys.argv[1]}"]
    config = make_config(mode="test", overrides=overrides)
    trainer = Trainer(config, SPEC, make_agent(config, SPEC))
    for seed in range(3):
        trainer.insert(block(seed))
    batches = trainer._replay.sample(trainer.updates_per_call)
    program = trainer._update.lower(trainer._state, batches).compile()  # which `train` finds
    metrics = trainer.train()
    state = trainer._state
    used = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)}
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(trainer.weights().params)])
    found[devices] = {
        "used": sorted(used),
        "flops": program.cost_analysis()["flops"],
        "params": flat.tolist(),
        "metrics": metrics,
    }
print(json.dumps(found))
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["dreamer"])
def test_one_two_and_four_devices_give_the_same_update(algorithm):
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, algorithm],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert {devices: result["used"] for devices, result in found.items()} == {
        "1": [1],
        "2": [2],
        "4": [4],
    }
    for devices in ("2", "4"):
        # Imagination is split as well. Only draws, percentiles and the optimizer are not.
        assert found[devices]["flops"] < 1.3 * found["1"]["flops"] / int(devices)
        assert found[devices]["params"] == pytest.approx(found["1"]["params"], rel=1e-4, abs=1e-5)
        for name, value in found["1"]["metrics"].items():
            assert found[devices]["metrics"][name] == pytest.approx(value, rel=2e-3, abs=1e-4), name


def test_too_few_devices_are_one_sentence():
    with pytest.raises(
        ConfigError, match=r"learner_devices = 64: this process sees \d+ devices \(cpu\)"
    ):
        over_devices(lambda state, batches: state, 64)


def test_the_search_for_nans_needs_a_single_device():
    with jax.debug_nans(True), pytest.raises(ConfigError, match="set it to 1"):
        over_devices(lambda state, batches: state, 2)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["training.learner_devices=3"], "batch_size 8 is not a multiple"),
        (["algorithm=ppo", "training.cars=6", "training.learner_devices=4"], "cars 6 is not a mul"),
        (["algorithm=ppo", "training.blocks_per_call=2", "training.learner_devices=2"], "one prog"),
        (["replay.on_device=true", "training.learner_devices=2"], "on_device needs one device"),
        (["algorithm=ppo", "replay.on_device=true"], "run trains ppo on 1"),
    ],
)
def test_a_batch_that_cannot_be_split_evenly_or_is_on_one_device_is_refused(overrides, reason):
    with pytest.raises(ConfigError, match=reason):
        make_config(mode="test", overrides=overrides)
