"""One simulator as the driver sees it: its actor, its blocks in flight and its signs of life."""

import contextlib
import dataclasses
import time
from typing import NamedTuple

import ray
from ray import ObjectRef
from ray.actor import ActorClass
from ray.exceptions import RayError

from cluster.config import ClusterConfig
from cluster.nodes import Node, selector
from cluster.training.ray_calls import is_ready
from cluster.training.simulator import (
    ProcessLocation,
    RemoteSimulator,
    SimulatorActor,
    SimulatorProcess,
    simulator_environment,
)
from cluster.training.weights import PublishedWeights
from rlcar.rollout.compiled import Episodes
from rlcar.types import Trajectory

ANSWER_S = 5.0  # how long a simulator may take to answer a ping
# A simulator is pinged when it has shown no progress for this share of its limit.
_PING_AFTER = 0.25


class Block(NamedTuple):
    """A block that a simulator drove; its steps stay in Ray's object store."""

    trajectory: ObjectRef[Trajectory]
    episodes: Episodes
    weights_version: int


class BlockInFlight(NamedTuple):
    """A block that a simulator was asked for."""

    trajectory: ObjectRef[Trajectory]
    weights_version: int
    order: int  # of the request, among the requests to all simulators


@dataclasses.dataclass
class SimulatorHandle:
    """The state of one simulator; its actor may be replaced."""

    index: int
    restart_id: int = 0
    actor: RemoteSimulator | None = None  # None while it waits to be started
    last_progress_s: float = 0.0  # or when it started, or got its first request
    start_at_s: float = 0.0
    leave_at_s: float | None = None  # set: gets no more requests, and is killed then at the latest
    in_flight: dict[ObjectRef[Episodes], BlockInFlight] = dataclasses.field(default_factory=dict)
    has_delivered: bool = False
    failures: int = 0  # in a row, without a block between them
    _location: ObjectRef[ProcessLocation] | ProcessLocation | None = None
    _ping: ObjectRef[float] | None = None  # resolves to the seconds since its last progress
    _pinged_s: float = 0.0

    def started(self, actor: RemoteSimulator) -> None:
        """Takes a new actor."""
        self.actor = actor
        self._location = actor.location.remote()
        self.last_progress_s = time.monotonic()

    def ended(self) -> None:
        """Forgets its actor and its blocks: one failure, however many of its blocks report it."""
        self.actor = self._location = self._ping = None
        self.in_flight = {}
        self.has_delivered = False

    def request_block(self, weights: PublishedWeights, order: int) -> None:
        """Asks for one block, driven with these weights."""
        assert self.actor is not None, self.index
        if not self.in_flight:
            self.last_progress_s = time.monotonic()
        trajectory, episodes = self.actor.collect.remote(weights.ref)
        self.in_flight[episodes] = BlockInFlight(trajectory, weights.version, order)

    def silent_too_long_s(self, limit_s: float) -> float | None:
        """Returns for how long it has shown no progress, if that exceeds the limit; else None.

        Pings a simulator that has delivered nothing for a while. While the driver evaluates, it
        sends no pings, and `last_progress_s` becomes old for that reason alone. Therefore the
        simulator is judged only after an answer, or after enough time for one.
        """
        now_s = time.monotonic()
        has_answered = False
        if self._ping is not None and is_ready(self._ping):
            has_answered = True
            with contextlib.suppress(RayError):  # its blocks will report the failure
                self.last_progress_s = max(self.last_progress_s, now_s - ray.get(self._ping))
            self._ping = None
        is_overdue = self._ping is not None and now_s - self._pinged_s > ANSWER_S
        is_quiet = self.in_flight and now_s - self.last_progress_s > _PING_AFTER * limit_s
        if is_quiet and self._ping is None and self.actor is not None:
            self._ping, self._pinged_s = self.actor.silent_s.remote(), now_s
        silence_s = time.monotonic() - self.last_progress_s
        is_silent = self.in_flight and (has_answered or is_overdue) and silence_s > limit_s
        return silence_s if is_silent else None

    def known_location(self) -> ProcessLocation | None:
        """Returns where it runs; None while that is not known. Never waits."""
        if isinstance(self._location, ObjectRef) and is_ready(self._location):
            with contextlib.suppress(RayError):  # its blocks will report the failure
                self._location = ray.get(self._location)
        return self._location if isinstance(self._location, ProcessLocation) else None

    def location(self) -> ProcessLocation:
        """Returns where it runs; waits until it has started."""
        if isinstance(self._location, ObjectRef):
            return ray.get(self._location)
        assert self._location is not None, self.index
        return self._location


def simulator_class(cluster: ClusterConfig, nodes: list[Node]) -> ActorClass[SimulatorProcess]:
    """Returns the actor class of simulators with the resources that each of them asks for."""
    return SimulatorActor.options(
        num_cpus=cluster.simulator_cpus,
        runtime_env={"env_vars": simulator_environment()},
        label_selector=selector("sim", nodes),
    )


def progress_limit_s(cluster: ClusterConfig, has_delivered: bool) -> float:
    """Returns how long a simulator may show no progress; its start includes compilation."""
    return cluster.simulator_deadline_s if has_delivered else cluster.start_deadline_s
