"""Simulators that take turns: the same blocks in the same order in each run."""

import contextlib
import time
from collections import deque
from types import TracebackType
from typing import Any, NamedTuple, Self

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.config import ClusterConfig
from cluster.nodes import nodes_now, simulators_that_fit
from cluster.training.fleet import ANSWER_S, Block, reason_of, simulator_options
from cluster.training.simulator import close_simulators
from cluster.training.weights import Published
from rlcar.config import Config
from rlcar.errors import UserError
from rlcar.rollout.race import Episodes
from rlcar.runs.metrics import Rate


class SimulatorLostError(Exception):
    """A simulator died or hangs, and a replacement would drive other episodes; says which."""


class _Sent(NamedTuple):
    """A block that was asked for."""

    simulator: int
    trajectory: Any  # ref
    episodes: Any  # ref
    version: int


class OrderedFleet:
    """Holds K simulators; simulator b mod K drives block b, and blocks are taken in that order.

    At most `blocks_in_flight` blocks of each simulator are under way. Whoever sends a block each
    time after learning from one so gives block b the weights from after block
    b - K x blocks_in_flight, in each run.
    """

    def __init__(self, config: Config, cluster: ClusterConfig, epoch: int = 0) -> None:
        """Starts the simulators and returns at once; `epoch` is that of `Fleet`."""
        nodes = nodes_now()
        wanted = cluster.simulators
        number = wanted if isinstance(wanted, int) else max(1, simulators_that_fit(nodes, cluster))
        self._cluster, self._must_close = cluster, bool(config.environment.id)
        options, config_ref = simulator_options(cluster, nodes), ray.put(config)
        self._actors = [options.remote(config_ref, index, epoch) for index in range(number)]
        self._sent: deque[_Sent] = deque()
        self._next = 0  # simulator to be asked next
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
            close_simulators(self._actors, [sent.episodes for sent in self._sent])
        for actor in self._actors:
            ray.kill(actor)

    def __len__(self) -> int:
        return len(self._actors)

    def metrics(self) -> dict[str, float]:
        """What an operator wants to know of the simulators, under the names of `Fleet`."""
        return {
            "cluster/simulators": len(self),
            "cluster/simulators_delivering": sum(self._has_delivered),
            "cluster/simulators_busy_share": min(1.0, self._busy.per_s() / len(self)),
        }

    def fill(self, weights: Published) -> None:
        """Asks for as many blocks as may be under way, all with these weights."""
        for _ in range(len(self) * self._cluster.blocks_in_flight):
            self.send(weights)

    def send(self, weights: Published) -> None:
        """Asks the simulator whose turn it is for a block, driven with these weights."""
        collect = self._actors[self._next].collect.options(num_returns=2)
        trajectory, episodes = collect.remote(weights.ref)
        self._sent.append(_Sent(self._next, trajectory, episodes, weights.version))
        self._next = (self._next + 1) % len(self)

    def take(self, timeout_s: float) -> Block | None:
        """Returns the oldest block that was asked for; None when it is not done in time.

        Raises SimulatorLostError when its simulator is gone or hangs, and the UserError that it
        raised itself.
        """
        sent = self._sent[0]
        if self._waiting_since_s is None:
            self._waiting_since_s = time.monotonic()
        done, _ = ray.wait([sent.episodes], timeout=timeout_s)
        if not done:
            self._check_deadline(sent.simulator)
            return None
        self._sent.popleft()
        self._waiting_since_s = None
        try:
            episodes: Episodes = ray.get(sent.episodes)
        except RayError as error:
            if isinstance(error, RayTaskError) and isinstance(error.cause, UserError):
                raise error.cause from None
            raise SimulatorLostError(f"simulator {sent.simulator}: {reason_of(error)}") from error
        self._busy.add(episodes.busy_s)
        self._has_delivered[sent.simulator] = True
        return Block(sent.trajectory, episodes, sent.version)

    def _check_deadline(self, simulator: int) -> None:
        limit_s = (
            self._cluster.simulator_deadline_s
            if self._has_delivered[simulator]
            else self._cluster.start_deadline_s
        )
        assert self._waiting_since_s is not None
        if time.monotonic() - self._waiting_since_s <= limit_s:
            return
        # A block of a slow environment may take longer: only the simulator knows its progress.
        asked = self._actors[simulator].silent_s.remote()
        done, _ = ray.wait([asked], timeout=ANSWER_S)
        now_s = time.monotonic()
        if done:
            with contextlib.suppress(RayError):  # without an answer, the time we waited counts
                self._waiting_since_s = max(self._waiting_since_s, now_s - ray.get(asked))
        silence_s = now_s - self._waiting_since_s
        if silence_s > limit_s:
            raise SimulatorLostError(
                f"simulator {simulator}: silent for {silence_s:.0f} s (limit {limit_s:.0f} s)"
            )
