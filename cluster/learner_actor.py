"""The learner in a process of its own: a shell around `rlcar.trainer`."""

import time
from pathlib import Path
from typing import Any

import ray

from rlcar import checkpoint, logs
from rlcar.agent import make_agent
from rlcar.config import Config
from rlcar.environment import spec_of
from rlcar.trainer import Trainer
from rlcar.types import Trajectory, Weights


class LearnerProcess:
    """Holds replay and parameters; every call does its work and returns, nothing runs beside it."""

    def __init__(self, config: Config):
        logs.take_over("learner")
        spec = spec_of(config)
        self._trainer = Trainer(config, spec, make_agent(config, spec))

    def learn(self, trajectory: Trajectory) -> tuple[dict[str, Any], Weights]:
        """Stores a block, runs the train steps that are due; two objects, the second for all."""
        began_s = time.perf_counter()
        metrics = self._trainer.insert(trajectory)
        calls = self._trainer.calls_due()
        for _ in range(calls):
            metrics |= self._trainer.train()
        updates = calls * self._trainer.updates_per_call
        weights = self._trainer.weights()
        about = {"updates": updates, "busy_s": time.perf_counter() - began_s, **self._counters()}
        return {"metrics": metrics, **about}, weights

    def start(self, resume: checkpoint.Save | None) -> tuple[dict[str, Any], Weights]:
        """The counters and weights to begin with; not in `__init__`, whose errors Ray swallows."""
        if resume is not None:
            self._trainer.restore(resume)
        return self._counters(), self._trainer.weights()

    def save(self, folder: Path, meta: dict[str, Any], keep: int) -> None:
        """Writes a checkpoint and drops old ones."""
        self._trainer.save(folder, meta)
        checkpoint.keep(folder, keep)

    def _counters(self) -> dict[str, Any]:
        trainer = self._trainer
        return {"env_steps": trainer.env_steps, "train_steps": trainer.train_steps}


LearnerActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(LearnerProcess)
