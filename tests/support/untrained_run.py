"""Run folders as training writes them, but with an untrained policy."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import jax

from rlcar.agents import make_agent
from rlcar.config import Config, make_config
from rlcar.evaluation.environment import spec_of
from rlcar.runs.run import Run
from rlcar.types import Evaluation, Weights


def write_run(folder: Path, config: Config, env_steps: int = 1000) -> Path:
    """Writes a run with an untrained policy; returns its folder."""
    agent = make_agent(config, spec_of(config))
    params = jax.device_get(agent.learner.policy_params(agent.learner.init(config.seed)))
    with Run(folder, config) as run:
        run.evaluated(env_steps, Weights(7, params), Evaluation({"evaluation/lap_rate": 0.5}, 9))
    return folder


@functools.cache
def untrained(preset: str = "documented", name: str = "first") -> Path:
    """Returns the folder of such a run, which all tests of a process share and none may change."""
    root = tempfile.mkdtemp(prefix="rlcar-test-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return write_run(Path(root) / name, make_config(preset, "test"))
