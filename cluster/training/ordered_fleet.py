"""Simulators that take turns, so that each run has the same blocks in the same order."""

import contextlib
import time
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from cluster.config import ClusterConfig
from cluster.nodes import nodes_now, simulators_that_fit
from cluster.training.ray_calls import is_ready, kill_actor, reason_of, start_actor
from cluster.training.simulator import RemoteSimulator, close_simulators
from cluster.training.simulator_handle import (
    ANSWER_S,
    Block,
    progress_limit_s,
    simulator_class,
)
from cluster.training.weights import PublishedWeights
from rlcar.config import Config
from rlcar.errors import UserError
from rlcar.evaluation.environment import kind_of
from rlcar.rollout.compiled import Episodes
from rlcar.runs.metrics import Rate
from rlcar.types import Trajectory


class SimulatorLostError(Exception):
    """A simulator died or hangs; it is not replaced, as another one would drive other episodes."""


class _Request(NamedTuple):
    """A block that a simulator was asked for."""

    simulator: int
    trajectory: ObjectRef[Trajectory]
    episodes: ObjectRef[Episodes]
    weights_version: int


class OrderedFleet:
    """Holds K simulators; simulator b mod K drives block b, and blocks are taken in that order.

    At most `blocks_in_flight` blocks of each simulator are in flight. A caller that requests one
    block after learning from one thereby drives block b with the weights after block
    b - K x blocks_in_flight, in each run.
    """

    def __init__(self, config: Config, cluster: ClusterConfig, restart_id: int = 0) -> None:
        """Starts the simulators and returns at once; `restart_id` means the same as in `Fleet`."""
        nodes = nodes_now()
        wanted = cluster.simulators
        number = wanted if isinstance(wanted, int) else max(1, simulators_that_fit(nodes, cluster))
        self._cluster, self._must_close = cluster, kind_of(config).must_close
        actor_class, config_ref = simulator_class(cluster, nodes), ray.put(config)
        self._actors: list[RemoteSimulator] = [
            start_actor(actor_class, config_ref, index, restart_id) for index in range(number)
        ]
        self._requests: deque[_Request] = deque()
        self._next = 0  # index of the simulator whose turn it is
        self._waiting_since_s: float | None = None  # or since its last known progress
        self._has_delivered = [False] * number
        self._busy = Rate()  # seconds of driving

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._must_close:
            close_simulators(self._actors, [request.episodes for request in self._requests])
        for actor in self._actors:
            kill_actor(actor)

    def __len__(self) -> int:
        return len(self._actors)

    def metrics(self) -> dict[str, float]:
        """Returns the metrics of the simulators, under the names that `Fleet` uses."""
        return {
            "cluster/simulators": len(self),
            "cluster/simulators_delivering": sum(self._has_delivered),
            "cluster/simulators_busy_share": min(1.0, self._busy.per_s() / len(self)),
        }

    def request_all(self, weights: PublishedWeights) -> None:
        """Requests as many blocks as may be in flight, all with these weights."""
        for _ in range(len(self) * self._cluster.blocks_in_flight):
            self.request(weights)

    def request(self, weights: PublishedWeights) -> None:
        """Requests a block from the simulator whose turn it is, driven with these weights."""
        trajectory, episodes = self._actors[self._next].collect.remote(weights.ref)
        self._requests.append(_Request(self._next, trajectory, episodes, weights.version))
        self._next = (self._next + 1) % len(self)

    def take_block(self, timeout_s: float) -> Block | None:
        """Returns the oldest block that was requested; None if it is not finished in time.

        Raises SimulatorLostError if its simulator died or hangs, and a UserError that the
        simulator itself raised.
        """
        request = self._requests[0]
        if self._waiting_since_s is None:
            self._waiting_since_s = time.monotonic()
        if not is_ready(request.episodes, timeout_s):
            self._check_deadline(request.simulator)
            return None
        self._requests.popleft()
        self._waiting_since_s = None
        try:
            episodes = ray.get(request.episodes)
        except RayError as error:
            if isinstance(error, RayTaskError) and isinstance(error.cause, UserError):
                raise error.cause from None
            lost = f"simulator {request.simulator}: {reason_of(error)}"
            raise SimulatorLostError(lost) from error
        self._busy.add(episodes.busy_s)
        self._has_delivered[request.simulator] = True
        return Block(request.trajectory, episodes, request.weights_version)

    def _check_deadline(self, simulator: int) -> None:
        limit_s = progress_limit_s(self._cluster, self._has_delivered[simulator])
        assert self._waiting_since_s is not None
        if time.monotonic() - self._waiting_since_s <= limit_s:
            return
        # A block of a slow environment may take longer: only the simulator knows its progress.
        ping = self._actors[simulator].silent_s.remote()
        has_answered = is_ready(ping, ANSWER_S)
        now_s = time.monotonic()
        if has_answered:
            with contextlib.suppress(RayError):  # without an answer, the time of waiting counts
                self._waiting_since_s = max(self._waiting_since_s, now_s - ray.get(ping))
        silence_s = now_s - self._waiting_since_s
        if silence_s > limit_s:
            raise SimulatorLostError(
                f"simulator {simulator}: silent for {silence_s:.0f} s (limit {limit_s:.0f} s)"
            )
