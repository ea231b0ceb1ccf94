"""A trained run and an agent that all tests of a process share."""

import atexit
import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from rlcar.agents import Agent, make_agent
from rlcar.config import Config, make_config
from rlcar.evaluation import run_report as evaluate_run_module
from rlcar.offline import candidates as candidates_module
from rlcar.settings.section import Section
from rlcar.sim import SPEC
from rlcar.training import loop as train_module
from rlcar.training.curriculum import runner as curriculum_module
from rlcar.training.loop import TrainingOutcome, train
from rlcar.types import Spec

BLOCK = 128  # env steps
SETTINGS = (
    "training.cars=4",
    "training.block_length=32",
    "training.env_steps=768",
    "training.evaluate_every_env_steps=512",
    "training.checkpoint_every_s=1e-9",
    "training.checkpoints_kept=9",
    "training.log_every_s=1e-9",
    "replay.min_env_steps=256",
)

# A training in a process of its own, for tests of the process: what it compiles is cached for the
# next one.
SHORT_TRAINING = ["train", "--local", "--preset", "ppo", "--mode", "test"]
for _setting in ("training.env_steps=2048", "training.block_length=32", "ppo.epochs=1"):
    SHORT_TRAINING += ["--set", _setting]


def make_tiny_config(*overrides: str) -> Config:
    return make_config(mode="test", overrides=[*SETTINGS, *overrides])


@functools.cache
def _agent(algorithm: str, settings: Section, spec: Spec) -> Agent:
    return make_agent(
        make_config().model_copy(update={"algorithm": algorithm, algorithm: settings}), spec
    )


def tiny_agent(config: Config, spec: Spec = SPEC) -> Agent:
    """Returns one agent, with its compiled code, for all configs with the same agent settings."""
    return _agent(config.algorithm, getattr(config, config.algorithm), spec)


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Makes trainings and evaluations, and what is made of them, share compiled code inside."""
    with (
        mock.patch.object(candidates_module, "make_agent", tiny_agent),
        mock.patch.object(curriculum_module, "make_agent", tiny_agent),
        mock.patch.object(train_module, "make_agent", tiny_agent),
        mock.patch.object(evaluate_run_module, "make_agent", tiny_agent),
    ):
        yield


@functools.cache
def trained() -> tuple[Path, TrainingOutcome]:
    """Returns the folder of a complete run, which no test may change, and its outcome."""
    root = tempfile.mkdtemp(prefix="rlcar-test-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    folder = Path(root) / "tiny"
    with compiled_once():
        return folder, train(make_tiny_config(), folder)
