"""The learner in a process of its own: a shell around `rlcar.training.trainer`."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray

from cluster.training.replay_shards import rings_on
from cluster.training.simulator import Whereabouts, whereabouts
from rlcar.agents import make_agent
from rlcar.config import Config
from rlcar.devices.compile_cache import prepare_jax
from rlcar.evaluation.environment import spec_of
from rlcar.runs.metrics import RunningMean
from rlcar.storage import checkpoint
from rlcar.system import heartbeat, logs
from rlcar.training.trainer import Trainer, check_replay_memory
from rlcar.types import Trajectory, Weights


class Report(NamedTuple):
    """What the learner says after each call."""

    env_steps: int
    train_steps: int
    updates: int  # of this call
    metrics: dict[str, float]
    notes: tuple[str, ...] = ()  # lines for the user, of the first report


# Averaging window of `learner/idle_share`, in calls.
IDLE_CALLS = 20


class LearnerProcess:
    """Holds replay and parameters. Work goes one call at a time; `control` answers beside it."""

    def __init__(self, config: Config, shards: Sequence[Any] = (), shard_deadline_s: float = 60.0):
        _step_forward()
        logs.take_over("learner")
        prepare_jax()  # one that takes a dead one's place need not compile again
        self._config, self._shards, self._shard_deadline_s = config, shards, shard_deadline_s
        self._trainer: Trainer  # from `start` on
        self._is_draining = threading.Event()
        self._busy_since_s: float | None = None
        self._idle_since_s: float | None = None
        self._idle, self._whole = RunningMean(IDLE_CALLS), RunningMean(IDLE_CALLS)  # seconds a call

    def start(self, resume: checkpoint.Save | None) -> tuple[Report, Weights]:
        """What to begin with; all that may fail is here: in `__init__` Ray calls it a death."""
        ray.get([shard.whereabouts.remote() for shard in self._shards])
        with self._working():
            spec = spec_of(self._config)
            agent = make_agent(self._config, spec)
            slots = rings_on(self._shards, self._config, self._shard_deadline_s)
            notes: list[str] = []
            if slots is None:
                notes = check_replay_memory(self._config, spec, agent, "the learner's host")
            self._trainer = Trainer(self._config, spec, agent, slots)
            if resume is not None:
                self._trainer.restore(resume)
            report = self._report(0, {})._replace(notes=tuple(notes))
            return report, self._trainer.weights()

    def learn(self, trajectory: Trajectory) -> tuple[Report, Weights | None]:
        """Stores a block, runs the train steps that are due; two objects, the second for all.

        It is None when there is nothing new. Once it drains, train steps are left for later.
        """
        with self._working():
            metrics = self._trainer.insert(trajectory)
            before = self._trainer.train_steps
            for _ in range(self._trainer.calls_due()):
                if self._is_draining.is_set():
                    break
                metrics |= self._trainer.train()
            updates = self._trainer.train_steps - before
            weights = self._trainer.weights() if updates else None
        return self._report(updates, metrics | self._idle_share()), weights

    def save(self, folder: Path, meta: dict[str, Any]) -> None:
        """Writes a checkpoint."""
        with self._working():
            self._trainer.save(folder, meta)

    @ray.method(concurrency_group="control")
    def drain(self) -> None:
        """From now on blocks are only stored: the end is near."""
        self._is_draining.set()

    @ray.method(concurrency_group="control")
    def busy_s(self) -> float | None:
        """For how long its present call has shown no progress; None while it waits for one."""
        since_s = self._busy_since_s
        if since_s is None:
            return None
        return min(time.monotonic() - since_s, heartbeat.progress().silent_s)

    @ray.method(concurrency_group="control")
    def whereabouts(self) -> Whereabouts:
        """The process to look at, or to end."""
        return whereabouts()

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        began_s = self._busy_since_s = time.monotonic()
        try:
            yield
        finally:
            ended_s = time.monotonic()
            if self._idle_since_s is not None:
                self._idle.add(began_s - self._idle_since_s)
                self._whole.add(ended_s - self._idle_since_s)
            self._busy_since_s, self._idle_since_s = None, ended_s

    def _idle_share(self) -> dict[str, float]:
        whole_s = self._whole.mean()
        return {"learner/idle_share": self._idle.mean() / whole_s} if whole_s > 0.0 else {}

    def _report(self, updates: int, metrics: dict[str, float]) -> Report:
        return Report(self._trainer.env_steps, self._trainer.train_steps, updates, metrics)


def _step_forward() -> None:
    """Leaves the niceness that Ray gives its workers, where the kernel allows it."""
    for thread in Path("/proc/self/task").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), 0)


LearnerActor: Any = ray.remote(
    max_restarts=0,
    max_task_retries=0,
    concurrency_groups={"control": 1},
    # A block whose host is cut off must not stand in the way of those behind it.
    allow_out_of_order_execution=True,
)(LearnerProcess)
