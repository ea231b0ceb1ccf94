"""The examples that train our environment with others' algorithms, as their users run them."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def _run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("world", ["classic", "grand-prix"])
def test_stable_baselines3_trains_our_environment_unchanged(world):
    pytest.importorskip("stable_baselines3", reason="pip install 'rlcar[stable-baselines3]'")
    arguments = ["--env-steps", "1200", "--tracks", "2", "--world", world]
    said = _run("train_with_stable_baselines3.py", *arguments)
    assert "of 2 unseen tracks after 1200 env steps" in said


@pytest.mark.ray
@pytest.mark.slow
def test_rllib_trains_our_environment_unchanged():
    pytest.importorskip("torch", reason="pip install 'rlcar[rllib]'")
    pytest.importorskip("ray.rllib.algorithms.ppo", reason="pip install 'rlcar[rllib]'")
    said = _run("train_with_rllib.py", "--iterations", "2", "--batch", "400")
    assert "iteration 1: 800 env steps" in said
