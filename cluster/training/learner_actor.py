"""The learner in its own process: a shell around `rlcar.training.trainer`."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ray
from ray.actor import ActorClass

from cluster.training.ray_calls import RemoteMethod, RemotePairMethod
from cluster.training.replay_shards import RemoteReplayShard, rings_on
from cluster.training.simulator import ProcessLocation, this_location
from rlcar.agents import make_agent
from rlcar.config import Config
from rlcar.devices.compile_cache import prepare_jax
from rlcar.evaluation.environment import spec_of
from rlcar.rollout.compiled import Episodes
from rlcar.rollout.recorded import RecordedRollout
from rlcar.runs.metrics import RunningMean
from rlcar.storage import checkpoint
from rlcar.system import heartbeat, logs
from rlcar.training.recorded import open_recorded
from rlcar.training.trainer import Trainer, check_replay_memory
from rlcar.types import Trajectory, Weights


class LearnerReport(NamedTuple):
    """The first result of each call to the learner."""

    env_steps: int
    train_steps: int
    updates: int  # train steps of this call
    metrics: dict[str, float]
    notes: tuple[str, ...] = ()  # lines to show to the user; only in the first report
    episodes: Episodes | None = None  # of a block of recorded data


# Averaging window of `learner/idle_share`, in calls.
IDLE_CALLS = 20


class LearnerProcess:
    """Holds the replay buffer and the training state.

    Calls that work run one at a time; those of the concurrency group `control` run beside them.
    """

    def __init__(
        self,
        config: Config,
        shards: Sequence[RemoteReplayShard] = (),
        shard_deadline_s: float = 60.0,
    ):
        _reset_niceness()
        logs.take_over("learner")
        prepare_jax()  # a replacement need not compile again
        self._config, self._shards, self._shard_deadline_s = config, shards, shard_deadline_s
        self._trainer: Trainer  # set by `start`
        self._recorded: RecordedRollout | None = None
        self._is_draining = threading.Event()
        self._busy_since_s: float | None = None
        self._idle_since_s: float | None = None
        # seconds a call: waiting for it, and waiting plus working
        self._idle, self._whole = RunningMean(IDLE_CALLS), RunningMean(IDLE_CALLS)

    @ray.method(num_returns=2)
    def start(self, resume: checkpoint.Save | None) -> tuple[LearnerReport, Weights]:
        """Builds the trainer, and restores a checkpoint if one is given.

        All that may fail happens here: Ray reports an error in `__init__` as a dead actor.
        """
        ray.get([shard.location.remote() for shard in self._shards])
        with self._working():
            spec = spec_of(self._config)
            agent = make_agent(self._config, spec)
            slots = rings_on(self._shards, self._config, self._shard_deadline_s)
            notes: list[str] = []
            if slots is None:
                notes = check_replay_memory(self._config, spec, agent, "the learner's host")
            self._trainer = Trainer(self._config, spec, agent, slots)
            self._trainer.begin(resume)
            if self._config.data.folder:
                self._recorded = open_recorded(self._config, self._trainer, resume)
            report = self._report(0, {})._replace(notes=tuple(notes))
            return report, self._trainer.weights()

    @ray.method(num_returns=2)
    def learn(self, trajectory: Trajectory) -> tuple[LearnerReport, Weights | None]:
        """Stores a block and runs the train steps that are due, none of them while it drains.

        Returns two objects: the driver reads the report, and every simulator the weights, which
        are None if there was no train step.
        """
        with self._working():
            before = self._trainer.train_steps
            metrics = self._trainer.insert(trajectory) | self._train()
            updates = self._trainer.train_steps - before
            weights = self._trainer.weights() if updates else None
        return self._report(updates, metrics | self._idle_share()), weights

    @ray.method(num_returns=2)
    def learn_recorded(self) -> tuple[LearnerReport, Weights | None]:
        """Does the same as `learn` with the next block of recorded data, which it reads itself.

        While it drains, it reads nothing. Train steps that were still due when the checkpoint was
        written are run before it reads, so that a resumed training is the same bit for bit.
        """
        assert self._recorded is not None  # the driver calls this for such a config only
        with self._working():
            before = self._trainer.train_steps
            metrics, episodes = self._train(), None
            if not self._is_draining.is_set():
                trajectory, episodes = self._recorded.collect(
                    Weights(self._trainer.train_steps, None)
                )
                metrics |= self._trainer.insert(trajectory) | self._train()
            updates = self._trainer.train_steps - before
            weights = self._trainer.weights() if updates else None
        report = self._report(updates, metrics)
        return report if episodes is None else report._replace(episodes=episodes), weights

    def _train(self) -> dict[str, float]:
        """Runs the train steps that are due until it drains; returns their metrics."""
        metrics: dict[str, float] = {}
        for _ in range(self._trainer.calls_due()):
            if self._is_draining.is_set():
                break
            metrics |= self._trainer.train()
        return metrics

    def save(self, folder: Path, meta: dict[str, Any]) -> None:
        """Writes a checkpoint."""
        with self._working():
            recorded = None if self._recorded is None else self._recorded.saved()
            self._trainer.save(folder, meta, recorded)

    @ray.method(concurrency_group="control")
    def drain(self) -> None:
        """From now on `learn` only stores blocks, because the training is about to end."""
        self._is_draining.set()

    @ray.method(concurrency_group="control")
    def busy_s(self) -> float | None:
        """Returns for how long the current call has shown no progress; None between calls."""
        since_s = self._busy_since_s
        if since_s is None:
            return None
        return min(time.monotonic() - since_s, heartbeat.sign_of_life().silent_s)

    @ray.method(concurrency_group="control")
    def location(self) -> ProcessLocation:
        """Returns where this process runs."""
        return this_location()

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

    def _report(self, updates: int, metrics: dict[str, float]) -> LearnerReport:
        return LearnerReport(self._trainer.env_steps, self._trainer.train_steps, updates, metrics)


class RemoteLearner(Protocol):
    """The methods of `LearnerProcess` as the driver calls them."""

    start: RemotePairMethod[LearnerReport, Weights]
    learn: RemotePairMethod[LearnerReport, Weights]  # the second is None without train steps
    learn_recorded: RemotePairMethod[LearnerReport, Weights]
    save: RemoteMethod[None]
    drain: RemoteMethod[None]
    busy_s: RemoteMethod[float | None]
    location: RemoteMethod[ProcessLocation]


def _reset_niceness() -> None:
    """Resets the niceness that Ray gives its workers to 0, where the kernel allows it."""
    for thread in Path("/proc/self/task").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), 0)


LearnerActor: ActorClass[LearnerProcess] = ray.remote(  # type: ignore[call-overload]
    max_restarts=0,
    max_task_retries=0,
    concurrency_groups={"control": 1},
    # A block that cannot arrive, because its node is cut off, must not delay those behind it.
    allow_out_of_order_execution=True,
)(LearnerProcess)
