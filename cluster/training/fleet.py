"""All simulators of a training: keeps them busy, replaces failed ones, grows and shrinks."""

import collections
import itertools
import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from cluster.config import ClusterConfig
from cluster.nodes import NodeWatch, simulators_that_fit
from cluster.training.ray_calls import (
    is_lost_object,
    kill_actor,
    ready_refs,
    reason_of,
    start_actor,
)
from cluster.training.simulator import ProcessLocation, close_simulators
from cluster.training.simulator_handle import (
    Block,
    SimulatorHandle,
    progress_limit_s,
    simulator_class,
)
from cluster.training.weights import PublishedWeights
from rlcar.config import Config
from rlcar.errors import UserError
from rlcar.evaluation.environment import kind_of
from rlcar.rollout.compiled import Episodes
from rlcar.runs.metrics import Rate

logger = logging.getLogger(__name__)

# The pause before a restart doubles at most so often.
_MOST_DOUBLINGS = 6


class Fleet:
    """Holds N simulators. `take_blocks` yields finished blocks and never waits for a slow one."""

    def __init__(self, config: Config, cluster: ClusterConfig, restart_id: int = 0):
        """`restart_id` is that of the first simulators; each replacement counts it up."""
        self._cluster, self._restart_id = cluster, restart_id
        self._config_ref = ray.put(config)
        self._must_close = kind_of(config).must_close
        self._watch = NodeWatch()
        self._simulators: list[SimulatorHandle] = []
        # index -> restart_id of the next simulator with that index
        self._next_restart_ids: dict[int, int] = {}
        self._order = itertools.count()
        self.restarts = self.lost = 0
        self._restarts_by_node: collections.Counter[str] = collections.Counter()
        self._busy = Rate()  # seconds of driving

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __len__(self) -> int:
        return len(self._simulators)

    def locations(self) -> list[ProcessLocation]:
        """Returns where each simulator runs; waits until all of them have started."""
        return [
            simulator.location() for simulator in self._simulators if simulator.actor is not None
        ]

    def max_in_flight(self) -> int:
        """Returns how many blocks may be in flight at once."""
        return len(self) * self._cluster.blocks_in_flight

    def delivering(self) -> int:
        """Returns how many simulators have delivered a block since they were started."""
        return sum(simulator.has_delivered for simulator in self._simulators)

    def metrics(self) -> dict[str, float]:
        """Returns the metrics of the simulators."""
        return {
            "cluster/simulators": len(self),
            "cluster/simulators_delivering": self.delivering(),
            "cluster/simulator_restarts": self.restarts,
            "cluster/blocks_lost": self.lost,
            "cluster/simulators_busy_share": min(1.0, self._busy.per_s() / max(1, len(self))),
        }

    def count_lost(self, blocks: int) -> None:
        """Counts blocks that were delivered but died on their way to the learner."""
        self.lost += blocks

    def start(self) -> None:
        """Starts every simulator that should run; adds and removes simulators as nodes allow."""
        self._follow_nodes()
        now_s = time.monotonic()
        for simulator in self._simulators:
            if simulator.actor is None and now_s >= simulator.start_at_s:
                self._start(simulator)

    def request_blocks(self, weights: PublishedWeights) -> None:
        """Requests blocks up to the limit in flight from every simulator, with these weights."""
        self.start()
        for simulator in self._simulators:
            if simulator.actor is None or simulator.leave_at_s is not None:
                continue
            while len(simulator.in_flight) < self._cluster.blocks_in_flight:
                simulator.request_block(weights, next(self._order))

    def take_blocks(self, timeout_s: float, most: int | None = None) -> Iterator[Block]:
        """Yields at most so many blocks that are finished within `timeout_s`, the oldest first."""
        owners = {ref: simulator for simulator in self._simulators for ref in simulator.in_flight}
        if not owners:
            time.sleep(timeout_s)
            return
        ready = ready_refs(list(owners), timeout_s)
        now_s = time.monotonic()
        for ref in ready:  # also those that are not taken yet
            owners[ref].last_progress_s = now_s
        ready.sort(key=lambda ref: owners[ref].in_flight[ref].order)
        for ref in ready[:most]:
            block = self._take(owners[ref], ref)
            if block is not None:
                yield block
        self._replace_silent()

    def stop_starting(self) -> None:
        """Kills simulators that have not delivered yet: a restarting learner takes cores first."""
        self._end(*(simulator for simulator in self._simulators if not simulator.has_delivered))

    def free_cores(self, is_urgent: bool = False) -> None:
        """Kills simulators that are leaving, for a learner that waits for a core.

        If it `is_urgent` and none is leaving, the newest of several simulators is removed.
        """
        self._follow_nodes()
        leaving = [simulator for simulator in self._simulators if simulator.leave_at_s is not None]
        if is_urgent and not leaving and len(self._simulators) > 1:
            leaving = [max(self._simulators, key=lambda simulator: simulator.index)]
            logger.warning(
                "simulator %d is removed to free a core for the learner", leaving[0].index
            )
        self._end(*leaving)
        for simulator in leaving:
            self._simulators.remove(simulator)

    def stop(self) -> None:
        """Ends every simulator; the blocks that they were driving are lost."""
        self._watch.stop()
        self._end(*self._simulators)
        self._simulators = []

    def _take(self, simulator: SimulatorHandle, ref: ObjectRef[Episodes]) -> Block | None:
        request = simulator.in_flight.pop(ref, None)
        if request is None:
            return None  # its simulator was replaced a moment ago
        try:
            episodes = ray.get(ref)
        except RayError as error:
            if is_lost_object(error):  # the weights died with the learner, which is replaced
                self.lost += 1
            else:
                self._replace(simulator, reason_of(error))
            return None
        self._busy.add(episodes.busy_s)
        simulator.has_delivered, simulator.failures = True, 0
        return Block(request.trajectory, episodes, request.weights_version)

    def _replace_silent(self) -> None:
        # Ray reports nothing for a minute when a node is cut off: our own clock decides.
        for simulator in self._simulators:
            limit_s = progress_limit_s(self._cluster, simulator.has_delivered)
            silence_s = simulator.silent_too_long_s(limit_s)
            if silence_s is not None:
                reason = f"silent for {silence_s:.0f} s (limit {limit_s:.0f} s)"
                self._replace(simulator, reason, is_hung=True)

    def _replace(self, simulator: SimulatorHandle, reason: str, is_hung: bool = False) -> None:
        self.restarts += 1
        self._log_restart(simulator, reason)
        self.lost += len(simulator.in_flight)
        failures = simulator.failures + 1
        # Where nodes come and go, one simulator without a place must not stop the others.
        if failures > self._cluster.most_restarts_in_a_row and not (
            self._cluster.simulators == "auto" and self.delivering() > simulator.has_delivered
        ):
            raise UserError(
                f"simulator {simulator.index} failed {failures} times without delivering a block; "
                f"the last reason: {reason}"
            )
        self._end(simulator, at_once=is_hung)
        simulator.failures = failures
        pause_s = 0.0
        if failures > 1:
            pause_s = self._cluster.restart_pause_s * 2 ** min(failures - 2, _MOST_DOUBLINGS)
        simulator.start_at_s = time.monotonic() + pause_s

    def _log_restart(self, simulator: SimulatorHandle, reason: str) -> None:
        """Names the node, and how often simulators failed there: a bad node shows by its number."""
        location = simulator.known_location()
        if location is None:
            logger.warning("simulator %d is replaced: %s", simulator.index, reason)
            return
        self._restarts_by_node[location.node_id] += 1
        logger.warning(
            "simulator %d on %s is replaced: %s; failures of simulators on this node: %d",
            simulator.index,
            location,
            reason,
            self._restarts_by_node[location.node_id],
        )

    def _start(self, simulator: SimulatorHandle) -> None:
        simulator.restart_id = self._next_restart_ids.get(simulator.index, self._restart_id)
        self._next_restart_ids[simulator.index] = simulator.restart_id + 1
        actor_class = simulator_class(self._cluster, self._watch.nodes)
        arguments = (self._config_ref, simulator.index, simulator.restart_id)
        simulator.started(start_actor(actor_class, *arguments))

    def _end(self, *simulators: SimulatorHandle, at_once: bool = False) -> None:
        actors = [simulator.actor for simulator in simulators if simulator.actor is not None]
        if self._must_close and not at_once:
            close_simulators(
                actors, [ref for simulator in simulators for ref in simulator.in_flight]
            )
        for actor in actors:
            kill_actor(actor)
        for simulator in simulators:
            simulator.ended()

    def _follow_nodes(self) -> None:
        """Adds simulators where there is room; dismisses those beyond it or on a leaving node."""
        if self._cluster.simulators == "auto":
            node_ids = {node.id for node in self._watch.nodes}
            for simulator in self._staying():
                location = simulator.known_location()
                if location is not None and location.node_id not in node_ids:
                    self._dismiss(simulator, "its node leaves")
        staying = self._staying()
        if self._cluster.simulators == "auto" or not staying:
            self._resize(staying, self._wanted())
        now_s = time.monotonic()
        for simulator in list(self._simulators):
            leave_at_s = simulator.leave_at_s
            if leave_at_s is not None and (not simulator.in_flight or now_s > leave_at_s):
                self._end(simulator)
                self._simulators.remove(simulator)

    def _staying(self) -> list[SimulatorHandle]:
        return [simulator for simulator in self._simulators if simulator.leave_at_s is None]

    def _resize(self, staying: list[SimulatorHandle], wanted: int) -> None:
        # Simulators that do not deliver yet leave first, then the newest.
        removable = sorted(
            staying, key=lambda simulator: (simulator.has_delivered, -simulator.index)
        )
        for simulator in removable[: max(0, len(staying) - wanted)]:
            self._dismiss(simulator, f"there is room for {wanted}")
        used = {simulator.index for simulator in self._simulators}
        free = (index for index in itertools.count() if index not in used)
        for index in itertools.islice(free, max(0, wanted - len(staying))):
            self._simulators.append(SimulatorHandle(index))

    def _wanted(self) -> int:
        if isinstance(self._cluster.simulators, int):
            return self._cluster.simulators
        return max(1, simulators_that_fit(self._watch.nodes, self._cluster))

    def _dismiss(self, simulator: SimulatorHandle, reason: str) -> None:
        logger.info("simulator %d is dismissed: %s", simulator.index, reason)
        simulator.leave_at_s = time.monotonic() + self._cluster.simulator_deadline_s
