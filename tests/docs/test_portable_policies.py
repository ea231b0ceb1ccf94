"""The commands and programs of docs/how-to/portable-policies.md, as a reader runs them."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rlcar.config import parse_config
from rlcar.registry import Registry
from rlcar.storage.arrays import flatten
from serve.policy import load_policy
from tests.support.trained_like import trained_like
from tests.support.untrained_run import untrained

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "portable-policies.md").read_text()
STEPS = 3


def _block(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return block


@pytest.fixture
def wanted(rlcar, tmp_path):
    """Runs the commands of the page; returns the served actions for observations of zeros."""
    registry = Registry(tmp_path / "models")
    about = registry.publish(untrained("recurrent-ppo", "portable")).metadata
    arrays = flatten(trained_like(parse_config(about["config"])))
    registry.promote(registry.add(arrays, about).number, "champion")
    for line in _block("shell").splitlines():
        assert rlcar(*line.split()[1:])[0] == 0
    policy = load_policy(registry)
    state, actions = policy.initial_state(1), []
    for step in range(STEPS):
        seen = np.zeros((1, policy.observation_size), np.float32)
        action, state = policy.act(state, seen, np.array([step == 0]))
        actions.append(action[0])
    assert np.ptp(actions, axis=0).min() > 1e-5  # it remembers
    return np.stack(actions)


def test_the_python_program_drives(wanted):
    program: dict = {}
    exec(compile(_block("python"), "portable-policies.md", "exec"), program)
    answers = list(program["drive"](np.zeros((STEPS, 6), np.float32)))
    assert list(answers[0]) == ["steering", "throttle"]
    actions = [list(answer.values()) for answer in answers]
    np.testing.assert_allclose(actions, wanted, rtol=0, atol=1e-5)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler `cc`")
def test_the_c_program_drives(wanted, tmp_path):
    (tmp_path / "main.c").write_text(_block("c"))
    for command in _block("console").splitlines():
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    said = subprocess.run(["./drive"], cwd=tmp_path, check=True, capture_output=True, text=True)
    actions = [[float(word) for word in line.split()] for line in said.stdout.splitlines()]
    np.testing.assert_allclose(actions, wanted, rtol=0, atol=1e-5)
