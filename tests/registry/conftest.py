"""Runs as training leaves them, without the training: a folder, its settings, its best policy."""

from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from rlcar.agent import make_agent
from rlcar.config import Config, make_config
from rlcar.evaluation import Evaluation
from rlcar.registry import Registry
from rlcar.run import Run
from rlcar.sim import SPEC
from rlcar.types import Weights

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def documented() -> Config:
    return make_config("documented", "test")


@pytest.fixture(scope="session")
def make_run(tmp_path_factory) -> MakeRun:
    def make(config: Config, name: str, env_steps: int = 1000) -> Path:
        folder = tmp_path_factory.mktemp("runs") / name
        agent = make_agent(config, SPEC)
        params = jax.device_get(agent.learner.policy_params(agent.learner.init(config.seed)))
        with Run(folder, config) as run:
            run.evaluated(
                env_steps, Weights(7, params), Evaluation({"evaluation/lap_rate": 0.5}, 9)
            )
        return folder

    return make


@pytest.fixture(scope="session")
def run(make_run, documented) -> Path:
    return make_run(documented, "first")


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "models")
