"""With an accelerator the learner uses it, and driving stays on the CPU."""

import json
import os
import shutil
import subprocess
import sys

import jax
import pytest

from rlcar.devices.selection import default_platform, everything_on_cpu, to_learner

PROGRAM = """
import json, jax
from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.devices.selection import everything_on_cpu
from rlcar.evaluation.environment import make_rollout
from rlcar.sim import SPEC
from rlcar.training.trainer import Trainer

config = make_config(mode="test")
with everything_on_cpu():
    agent = make_agent(config, SPEC)
    trainer, rollout = Trainer(config, SPEC, agent), make_rollout(config, agent.policy)
    while not trainer.train_steps:
        trainer.insert(rollout.collect(trainer.weights())[0])
        for _ in range(trainer.calls_due()):
            trainer.train()

def platforms(tree):
    return sorted({device.platform for leaf in jax.tree.leaves(tree) for device in leaf.devices()})

print(json.dumps([platforms(trainer._state), platforms(rollout.state)]))
"""

# JAX fixes the way of dispatch when it starts its CPU backend.
BEFORE = """
import jax
from jax._src import xla_bridge
from rlcar.devices import selection

def disable():
    assert not xla_bridge.backends_are_initialized()
    disable_async_dispatch()

disable_async_dispatch, selection.disable_async_dispatch = selection.disable_async_dispatch, disable
assert jax.config.values["jax_cpu_enable_async_dispatch"]
"""
AFTER = """
assert not jax.config.values["jax_cpu_enable_async_dispatch"]
"""
ENVIRONMENT = "import gymnasium, rlcar.sim; gymnasium.make('rlcar/Race-v0')"
VECTOR_ENVIRONMENT = "import gymnasium, rlcar.sim; gymnasium.make_vec('rlcar/Race-v0', num_envs=2)"
PAGE = """
from serve.live import session
session.LiveSession = session.open_catalog = lambda *arguments, **options: None
session.open_live('models', race=session.RaceConfig())
"""


@pytest.mark.parametrize("start", [ENVIRONMENT, VECTOR_ENVIRONMENT, PAGE])
def test_steps_that_a_caller_waits_for_run_in_its_thread(start):
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + start + AFTER],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="needs a card")
def test_the_accelerator_learns_and_the_cpu_drives():
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == [["gpu"], ["cpu"]]


def test_without_an_accelerator_nothing_is_moved():
    state = {"w": jax.numpy.ones(3)}
    with everything_on_cpu():
        assert to_learner(state) is state
        assert default_platform() == "cpu"


def test_the_platform_is_that_of_the_default_device():
    with jax.default_device(jax.devices("cpu")[0]):
        assert default_platform() == "cpu"
    with jax.default_device("tpu"):  # only its name: nothing is computed there
        assert default_platform() == "tpu"
