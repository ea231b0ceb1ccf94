"""The learner actor as the driver sees it: blocks handed over, reports, deadlines and failures."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from cluster.config import ClusterConfig
from cluster.nodes import nodes_now, selector
from cluster.training.learner_actor import LearnerActor, LearnerReport, RemoteLearner
from cluster.training.ray_calls import (
    is_lost_object,
    is_ready,
    kill_actor,
    ready_refs,
    reason_of,
    start_actor,
)
from cluster.training.replay_shards import ReplayShards
from cluster.training.simulator import ProcessLocation
from cluster.training.simulator_handle import Block
from cluster.training.weights import PublishedWeights
from rlcar.config import Config
from rlcar.errors import UserError
from rlcar.storage import checkpoint
from rlcar.system import logs
from rlcar.types import Weights

logger = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_S = 0.2
_PING_AFTER_S = 2.0  # ping the learner after this much silence


class LearnerLostError(Exception):
    """The learner's process died, hangs or cannot be reached; the message says how it showed."""


class LearnerHandle:
    """One learner process, from its start to its end.

    Methods that communicate with it raise LearnerLostError when it is lost. A UserError that the
    learner itself raised comes through unchanged.
    """

    def __init__(
        self,
        config: Config,
        cluster: ClusterConfig,
        resume: checkpoint.Save | None,
        count_lost: Callable[[int], None],
    ):
        """Starts it and returns at once.

        Calls `count_lost` with the number of blocks that died on their way to the learner.
        """
        self._cluster, self._count_lost = cluster, count_lost
        self._shards = ReplayShards(config, cluster)
        learner_class = LearnerActor.options(
            num_cpus=cluster.learner_cpus,
            num_gpus=learner_gpus(config, cluster),
            label_selector=selector("learner", nodes_now()),
        )
        shard_deadline_s = cluster.learner_deadline_s
        self._actor: RemoteLearner = start_actor(
            learner_class, config, self._shards.actors, shard_deadline_s
        )
        self._first = self._actor.start.remote(resume)
        # report -> weights of the same call
        self._learning: dict[ObjectRef[LearnerReport], ObjectRef[Weights]] = {}
        self._saving: ObjectRef[None] | None = None
        self._ping: ObjectRef[float | None] | None = None
        self._pinged_s = 0.0
        self._last_answer_s = time.monotonic()
        self.env_steps = self.train_steps = self._train_steps_at_start = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        kill_actor(self._actor)
        self._shards.stop()

    def wait_until_started(
        self, free_cores: Callable[[bool], None], should_stop: Callable[[], bool]
    ) -> bool:
        """Waits until the learner runs and has read the checkpoint; False if it should stop first.

        Meanwhile it calls `free_cores` again and again: once with True, after half of the limit.
        """
        report_ref, weights = self._first
        limit_s = self._cluster.start_deadline_s
        began_s, was_urgent = time.monotonic(), False
        while not is_ready(report_ref, _POLL_S):
            if should_stop():
                return False
            waited_s = time.monotonic() - began_s
            if waited_s > limit_s:
                raise LearnerLostError(f"not started after {limit_s:.0f} s")
            is_urgent = waited_s > limit_s / 2 and not was_urgent
            was_urgent |= is_urgent
            free_cores(is_urgent)
        report = _result(report_ref)
        for note in report.notes:
            logs.announce(note)
        self.weights = PublishedWeights(report.train_steps, weights)
        self._accept(report, weights)
        self._train_steps_at_start = report.train_steps
        return True

    def location(self) -> ProcessLocation:
        """Returns where the learner runs."""
        return ray.get(self._actor.location.remote())

    def free_places(self) -> int:
        """Returns how many more blocks may be handed over now."""
        return max(0, self._cluster.learner_queue - len(self._learning))

    def blocks_in_flight(self) -> int:
        """Returns how many blocks wait for it or are learned from."""
        return len(self._learning)

    def learn(self, block: Block) -> None:
        """Hands a block over by reference."""
        self._expect(*self._actor.learn.remote(block.trajectory))

    def learn_recorded(self) -> None:
        """Requests that it reads a block of recorded data and learns from it."""
        self._expect(*self._actor.learn_recorded.remote())

    def _expect(self, report: ObjectRef[LearnerReport], weights: ObjectRef[Weights]) -> None:
        if not self._learning:
            self._last_answer_s = time.monotonic()
        self._learning[report] = weights

    def reports(self, timeout_s: float) -> Iterator[LearnerReport]:
        """Yields the reports that arrive within `timeout_s`; then `weights` are the newest."""
        for ref in ready_refs(list(self._learning), timeout_s):
            weights = self._learning.pop(ref)
            self._note_answer()
            try:
                report = _result(ref)
            except RayTaskError:  # the block died with its node before it reached the learner
                logger.warning("a block is lost on its way to the learner")
                self._count_lost(1)
                continue
            self._accept(report, weights)
            yield report
        if self._learning or self._saving is not None:
            self._check_alive()

    def begin_save(self, folder: Path, meta: dict[str, Any]) -> None:
        """Requests a checkpoint, unless one is being written."""
        if self._saving is None:
            self._note_answer()
            self._saving = self._actor.save.remote(folder, meta)

    def has_saved(self) -> bool:
        """Returns True once for each checkpoint that is complete."""
        if self._saving is None or not is_ready(self._saving):
            return False
        ref, self._saving = self._saving, None
        _result(ref)
        self._note_answer()
        return True

    def save(self, folder: Path, meta: dict[str, Any]) -> None:
        """Waits until the learner has learned from all blocks and written a checkpoint."""
        while self._saving is not None and not self.has_saved():
            self._wait_for(self._saving)
        self.begin_save(folder, meta)
        while not self.has_saved():
            assert self._saving is not None
            self._wait_for(self._saving)

    def fetch_weights(self) -> Weights:
        """Copies the newest weights into this process."""
        try:
            return ray.get(self.weights.ref)
        except RayError as error:
            raise LearnerLostError(reason_of(error)) from error

    def drain(self) -> None:
        """From now on the learner stores the blocks that it has, but trains on none of them."""
        self._actor.drain.remote()

    def is_busy(self) -> bool:
        """Says whether blocks wait for it."""
        return bool(self._learning)

    def is_before_first_train_step(self) -> bool:
        """Says whether it has learned nothing since its start, so that its loss costs nothing.

        The first train steps may be in compilation, which can take minutes.
        """
        return self.train_steps == self._train_steps_at_start

    def _accept(self, report: LearnerReport, weights: ObjectRef[Weights]) -> None:
        self._note_answer()
        if report.updates:  # else the call returned no weights
            self.weights = PublishedWeights(report.train_steps, weights)
        self.env_steps, self.train_steps = report.env_steps, report.train_steps

    def _note_answer(self) -> None:
        self._last_answer_s, self._ping = time.monotonic(), None

    def _wait_for(self, ref: ObjectRef[Any]) -> None:
        is_ready(ref, _POLL_S)
        self._check_alive()

    def _check_alive(self) -> None:
        """Pings a silent learner, and raises LearnerLostError if it hangs.

        Distinguishes a hung learner from a busy one, and from blocks that do not reach it.
        """
        now_s = time.monotonic()
        if now_s - self._last_answer_s < _PING_AFTER_S:
            return
        if self._ping is None:
            self._ping, self._pinged_s = self._actor.busy_s.remote(), now_s
            return
        silence_s = now_s - self._last_answer_s
        if not is_ready(self._ping):
            if now_s - self._pinged_s > self._cluster.learner_deadline_s:
                raise LearnerLostError(f"it has answered nothing for {silence_s:.0f} s")
            return
        busy_s = _result(self._ping)
        self._ping = None
        limit_s = self._cluster.learn_deadline_s
        if busy_s is not None and busy_s > limit_s:
            raise LearnerLostError(f"no progress for {busy_s:.0f} s (limit {limit_s:.0f} s)")
        if busy_s is None and silence_s > self._cluster.simulator_deadline_s:
            logger.warning(
                "%d blocks did not reach the learner for %.0f s and are given up: their node is "
                "cut off",
                len(self._learning),
                silence_s,
            )
            self._count_lost(len(self._learning))
            self._learning = {}


def _result(ref: ObjectRef[T]) -> T:
    """Returns the result of a call to the learner.

    Raises the UserError of the learner, RayTaskError for a lost argument, else LearnerLostError.
    """
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        if is_lost_object(error):
            raise
        logger.warning("the learner failed", exc_info=error)
        raise LearnerLostError(reason_of(error)) from error
    except RayError as error:
        raise LearnerLostError(reason_of(error)) from error


def learner_gpus(config: Config, cluster: ClusterConfig) -> float:
    """Returns how many GPUs the learner reserves."""
    if cluster.learner_gpus is not None:
        return cluster.learner_gpus
    return min(float(config.training.learner_devices), ray.cluster_resources().get("GPU", 0.0))
