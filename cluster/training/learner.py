"""The learner as the driver sees it: work handed over, reports heard, deadlines, death."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.config import ClusterConfig
from cluster.nodes import nodes_now, selector
from cluster.training.fleet import Block, is_lost_object, reason_of
from cluster.training.learner_actor import LearnerActor, Report
from cluster.training.replay_shards import ReplayShards
from cluster.training.simulator import Whereabouts
from cluster.training.weights import Published
from rlcar.config import Config
from rlcar.errors import UserError
from rlcar.storage import checkpoint
from rlcar.system import logs
from rlcar.types import Weights

logger = logging.getLogger(__name__)

_TICK_S = 0.2
_QUIET_S = 2.0  # who says nothing for longer is asked how it is


class LearnerLostError(Exception):
    """The learner's process is gone, cut off or hung; says how it was noticed."""


class RemoteLearner:
    """One learner process, from its start to its end.

    Everything that speaks to it raises LearnerLostError, and the UserErrors that it raised itself.
    """

    def __init__(
        self,
        config: Config,
        cluster: ClusterConfig,
        resume: checkpoint.Save | None,
        count_lost: Callable[[int], None],
    ):
        """Starts it and returns at once; `count_lost` is told of blocks that do not get to it."""
        self._cluster, self._count_lost = cluster, count_lost
        self._shards = ReplayShards(config, cluster)
        self._actor = LearnerActor.options(
            num_cpus=cluster.learner_cpus,
            num_gpus=learner_gpus(config, cluster),
            label_selector=selector("learner", nodes_now()),
        ).remote(config, self._shards.actors, cluster.learner_deadline_s)
        self._first = self._actor.start.options(num_returns=2).remote(resume)
        self._learning: dict[Any, Any] = {}  # ref of the report -> ref of the weights
        self._saving: Any = None
        self._ping: tuple[Any, float] | None = None
        self._heard_s = time.monotonic()
        self.env_steps = self.train_steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ray.kill(self._actor)
        self._shards.stop()

    def begin(self, make_room: Callable[[bool], None]) -> None:
        """Waits until it runs and has read the checkpoint.

        `make_room` is called meanwhile; once with True when half the time is over.
        """
        report_ref, weights = self._first
        limit_s = self._cluster.start_deadline_s
        began_s, was_urgent = time.monotonic(), False
        while not ray.wait([report_ref], timeout=_TICK_S)[0]:
            waited_s = time.monotonic() - began_s
            if waited_s > limit_s:
                raise LearnerLostError(f"not started after {limit_s:.0f} s")
            is_urgent = waited_s > limit_s / 2 and not was_urgent
            was_urgent |= is_urgent
            make_room(is_urgent)
        report: Report = _result(report_ref)
        for note in report.notes:
            logs.announce(note)
        self.weights = Published(report.train_steps, weights)
        self._adopt(report, weights)

    def whereabouts(self) -> Whereabouts:
        """Where it runs."""
        return ray.get(self._actor.whereabouts.remote())

    def room(self) -> int:
        """How many more blocks may wait for it."""
        return max(0, self._cluster.learner_queue - len(self._learning))

    def learn(self, block: Block) -> None:
        """Hands a block over by reference."""
        if not self._learning:
            self._heard_s = time.monotonic()
        learn = self._actor.learn.options(num_returns=2)
        report, weights = learn.remote(block.trajectory)
        self._learning[report] = weights

    def reports(self, timeout_s: float) -> Iterator[Report]:
        """Yields what it has finished, after at most `timeout_s`; then `weights` are the newest."""
        if self._learning:
            refs = list(self._learning)
            done, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
            if done:
                done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            for ref in done:
                weights = self._learning.pop(ref)
                self._hear()
                try:
                    report = _result(ref)
                except RayTaskError:  # the block died with its host before it got here: well
                    logger.warning("a block is lost on its way to the learner")
                    self._count_lost(1)
                    continue
                self._adopt(report, weights)
                yield report
        if self._learning or self._saving is not None:
            self._ask_how_it_is()

    def begin_save(self, folder: Path, meta: dict[str, Any]) -> None:
        """Asks for a checkpoint, unless one is being written."""
        if self._saving is None:
            self._hear()
            self._saving = self._actor.save.remote(folder, meta)

    def has_saved(self) -> bool:
        """True once after each checkpoint that it has written."""
        if self._saving is None or not ray.wait([self._saving], timeout=0)[0]:
            return False
        ref, self._saving = self._saving, None
        _result(ref)
        self._hear()
        return True

    def save(self, folder: Path, meta: dict[str, Any]) -> None:
        """Waits until all that it was handed, and then a checkpoint, is written."""
        while self._saving is not None and not self.has_saved():
            self._wait_for(self._saving)
        self.begin_save(folder, meta)
        while not self.has_saved():
            self._wait_for(self._saving)

    def fetch_weights(self) -> Weights:
        """The newest weights themselves."""
        try:
            return ray.get(self.weights.ref)
        except RayError as error:
            raise LearnerLostError(reason_of(error)) from error

    def drain(self) -> None:
        """Lets it store what it was handed, but train on nothing any more."""
        self._actor.drain.remote()

    def is_busy(self) -> bool:
        """Says whether blocks wait for it."""
        return bool(self._learning)

    def _adopt(self, report: Report, weights: Any) -> None:
        self._hear()
        if report.updates:  # else there are none
            self.weights = Published(report.train_steps, weights)
        self.env_steps, self.train_steps = report.env_steps, report.train_steps

    def _hear(self) -> None:
        self._heard_s, self._ping = time.monotonic(), None

    def _wait_for(self, ref: Any) -> None:
        ray.wait([ref], timeout=_TICK_S)
        self._ask_how_it_is()

    def _ask_how_it_is(self) -> None:
        """Tells a hung learner from a busy one, and both from blocks that do not get to it."""
        now_s = time.monotonic()
        if now_s - self._heard_s < _QUIET_S:
            return
        if self._ping is None:
            self._ping = self._actor.busy_s.remote(), now_s
            return
        ref, asked_s = self._ping
        if not ray.wait([ref], timeout=0)[0]:
            if now_s - asked_s > self._cluster.learner_deadline_s:
                raise LearnerLostError(f"it has answered nothing for {now_s - self._heard_s:.0f} s")
            return
        busy_s: float | None = _result(ref)
        self._ping = None
        limit_s = self._cluster.learn_deadline_s
        if busy_s is not None and busy_s > limit_s:
            raise LearnerLostError(f"no progress for {busy_s:.0f} s (limit {limit_s:.0f} s)")
        if busy_s is None and now_s - self._heard_s > self._cluster.simulator_deadline_s:
            logger.warning("%d blocks are given up: their host is cut off", len(self._learning))
            self._count_lost(len(self._learning))
            self._learning = {}


def _result(ref: Any) -> Any:
    """What a call returned; its errors as ours, those about a lost argument as they are."""
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
    """How many a learner asks for."""
    if cluster.learner_gpus is not None:
        return cluster.learner_gpus
    return min(float(config.training.learner_devices), ray.cluster_resources().get("GPU", 0.0))
