"""The simulators: keeps each of them busy, replaces the dead and the silent, grows and shrinks."""

import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import ray
from ray.exceptions import ObjectLostError, RayError, RayTaskError

from cluster.config import ClusterConfig
from cluster.nodes import Node, NodeWatch, selector, simulators_that_fit
from cluster.training.simulator import SIM_ENVIRONMENT, SimActor, Whereabouts, close_simulators
from cluster.training.weights import Published
from rlcar.config import Config
from rlcar.errors import UserError
from rlcar.rollout.race import Episodes
from rlcar.runs.metrics import Rate

logger = logging.getLogger(__name__)

ANSWER_S = 5.0  # how long a simulator has to say when it last made progress


class Block(NamedTuple):
    """A block that was driven, as it travels: its steps by reference."""

    trajectory: Any  # ref
    episodes: Episodes
    version: int  # of the weights that drove it


class _InFlight(NamedTuple):
    trajectory: Any  # ref
    version: int
    order: int


@dataclasses.dataclass
class Simulator:
    """One simulator as the driver sees it."""

    index: int
    epoch: int
    actor: Any = None  # None while it waits to be started
    whereabouts: Any = None  # a ref, then Whereabouts
    heard_s: float = 0.0  # when it last made progress, or began
    start_at_s: float = 0.0
    leave_at_s: float | None = None  # it gets no more blocks, and ends then at the latest
    asked: Any = None  # a ref: the time since its last progress
    asked_s: float = 0.0  # when
    in_flight: dict[Any, _InFlight] = dataclasses.field(default_factory=dict)  # by ref of Episodes
    has_delivered: bool = False
    failures: int = 0  # in a row, without a block between them


class Fleet:
    """Holds N simulators; `blocks` yields what they finished and never waits for a straggler."""

    def __init__(self, config: Config, cluster: ClusterConfig, epoch: int = 0):
        """`epoch` to begin with: a resumed training gives another one, and so drives new races."""
        self._cluster, self._epoch = cluster, epoch
        self._config_ref = ray.put(config)
        self._must_close = bool(config.environment.id)  # the race has nothing to close
        self._watch = NodeWatch()
        self._simulators: list[Simulator] = []
        self._epochs: dict[int, int] = {}  # index -> the next epoch of such a simulator
        self._order = itertools.count()
        self.restarts = self.lost = 0
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

    def whereabouts(self) -> list[Whereabouts]:
        """Of each simulator, for an operator (or a test) to look at; waits until they all run."""
        there = [one.whereabouts for one in self._simulators if one.actor is not None]
        return [one if isinstance(one, Whereabouts) else ray.get(one) for one in there]

    def room(self) -> int:
        """How many blocks may be in flight at once."""
        return len(self) * self._cluster.blocks_in_flight

    def delivering(self) -> int:
        """How many simulators have delivered a block since they were started."""
        return sum(simulator.has_delivered for simulator in self._simulators)

    def metrics(self) -> dict[str, float]:
        """What an operator wants to know of the simulators."""
        return {
            "cluster/simulators": len(self),
            "cluster/simulators_delivering": self.delivering(),
            "cluster/simulator_restarts": self.restarts,
            "cluster/blocks_lost": self.lost,
            "cluster/simulators_busy_share": min(1.0, self._busy.per_s() / max(1, len(self))),
        }

    def count_lost(self, blocks: int) -> None:
        """Counts blocks that were delivered and died on their way."""
        self.lost += blocks

    def start(self) -> None:
        """Starts those that should run and do not; adds and drops them as the nodes allow."""
        self._fit()
        now_s = time.monotonic()
        for simulator in self._simulators:
            if simulator.actor is None and now_s >= simulator.start_at_s:
                self._start(simulator)

    def feed(self, weights: Published) -> None:
        """Tops every simulator up to its blocks in flight, with the newest weights."""
        self.start()
        for simulator in self._simulators:
            if simulator.actor is None or simulator.leave_at_s is not None:
                continue
            while len(simulator.in_flight) < self._cluster.blocks_in_flight:
                if not simulator.in_flight:
                    simulator.heard_s = time.monotonic()
                collect = simulator.actor.collect.options(num_returns=2)
                trajectory, episodes = collect.remote(weights.ref)
                simulator.in_flight[episodes] = _InFlight(
                    trajectory, weights.version, next(self._order)
                )

    def blocks(self, timeout_s: float, most: int | None = None) -> Iterator[Block]:
        """Yields at most so many blocks that are done within `timeout_s`, the oldest first."""
        owner = {ref: one for one in self._simulators for ref in one.in_flight}
        refs = list(owner)
        if not refs:
            time.sleep(timeout_s)
            return
        done, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
        if done:  # whatever else is ready by now comes along
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        now_s = time.monotonic()
        for ref in done:  # also those that are not taken yet
            owner[ref].heard_s = now_s
        done.sort(key=lambda ref: owner[ref].in_flight[ref].order)
        for ref in done[:most]:
            block = self._take(owner[ref], ref)
            if block is not None:
                yield block
        self._replace_silent()

    def step_back(self) -> None:
        """Ends those that have not delivered yet: a learner that restarts takes cores first."""
        self._end(*(one for one in self._simulators if not one.has_delivered))

    def make_room(self, is_urgent: bool = False) -> None:
        """Ends at once those that are to go, for a learner that waits for a core.

        When it `is_urgent` and none are, the youngest of several gives up its own.
        """
        self._fit()
        leaving = [one for one in self._simulators if one.leave_at_s is not None]
        if is_urgent and not leaving and len(self._simulators) > 1:
            leaving = [max(self._simulators, key=lambda one: one.index)]
            logger.warning("simulator %d gives its core to the learner", leaving[0].index)
        self._end(*leaving)
        for simulator in leaving:
            self._simulators.remove(simulator)

    def stop(self) -> None:
        """Ends every simulator; what they were driving is lost."""
        self._watch.stop()
        self._end(*self._simulators)
        self._simulators = []

    def _take(self, simulator: Simulator, ref: Any) -> Block | None:
        flight = simulator.in_flight.pop(ref, None)
        if flight is None:
            return None  # its simulator was replaced a moment ago
        try:
            episodes = ray.get(ref)
        except RayError as error:
            if is_lost_object(error):  # the weights died with their host; the learner tells
                self.lost += 1
            else:
                self._replace(simulator, reason_of(error))
            return None
        self._busy.add(episodes.busy_s)
        simulator.has_delivered, simulator.failures = True, 0
        return Block(flight.trajectory, episodes, flight.version)

    def _replace_silent(self) -> None:
        # Ray says nothing for a minute when a host is cut off: our own clock decides.
        for simulator in self._simulators:
            limit_s = (
                self._cluster.simulator_deadline_s
                if simulator.has_delivered
                else self._cluster.start_deadline_s
            )
            is_up_to_date = _hear(simulator, limit_s)
            silence_s = time.monotonic() - simulator.heard_s
            if simulator.in_flight and is_up_to_date and silence_s > limit_s:
                reason = f"silent for {silence_s:.0f} s (limit {limit_s:.0f} s)"
                self._replace(simulator, reason, is_hung=True)

    def _replace(self, simulator: Simulator, reason: str, is_hung: bool = False) -> None:
        logger.warning("simulator %d is replaced: %s", simulator.index, reason)
        self.restarts += 1
        self.lost += len(simulator.in_flight)
        failures = simulator.failures + 1
        # Where nodes come and go, one that finds no room is no reason to stop the others.
        if failures > self._cluster.most_restarts_in_a_row and not (
            self._cluster.simulators == "auto" and self.delivering() > simulator.has_delivered
        ):
            raise UserError(
                f"simulator {simulator.index} failed {failures} times without delivering a block; "
                f"the last reason: {reason}"
            )
        self._end(simulator, at_once=is_hung)
        simulator.failures = failures
        pause_s = self._cluster.restart_pause_s * 2 ** min(failures - 2, 6) if failures > 1 else 0.0
        simulator.start_at_s = time.monotonic() + pause_s

    def _start(self, simulator: Simulator) -> None:
        simulator.epoch = self._epochs.get(simulator.index, self._epoch)
        self._epochs[simulator.index] = simulator.epoch + 1
        simulator.actor = simulator_options(self._cluster, self._watch.nodes).remote(
            self._config_ref, simulator.index, simulator.epoch
        )
        simulator.whereabouts = simulator.actor.whereabouts.remote()
        simulator.heard_s = time.monotonic()

    def _end(self, *simulators: Simulator, at_once: bool = False) -> None:
        actors = [one.actor for one in simulators if one.actor is not None]
        if self._must_close and not at_once:
            close_simulators(actors, [ref for one in simulators for ref in one.in_flight])
        for actor in actors:
            ray.kill(actor)
        for simulator in simulators:
            simulator.actor = simulator.whereabouts = simulator.asked = None
            simulator.in_flight = {}  # one death, however many of its blocks report it
            simulator.has_delivered = False

    def _fit(self) -> None:
        """Adds simulators where there is room; those beyond it, or on a node that leaves, go."""
        staying = [one for one in self._simulators if one.leave_at_s is None]
        if self._cluster.simulators == "auto":
            nodes = {node.id for node in self._watch.nodes}
            for simulator in staying:
                node = _node_of(simulator)
                if node is not None and node not in nodes:
                    self._dismiss(simulator, "its node leaves")
        staying = [one for one in self._simulators if one.leave_at_s is None]
        wanted = self._wanted() if self._cluster.simulators == "auto" or not staying else None
        if wanted is not None:
            # First those that do not run yet, then the youngest.
            spare = sorted(staying, key=lambda one: (one.has_delivered, -one.index))
            for simulator in spare[: max(0, len(staying) - wanted)]:
                self._dismiss(simulator, f"there is room for {wanted}")
            taken = {one.index for one in self._simulators}
            free = (index for index in itertools.count() if index not in taken)
            for index in itertools.islice(free, max(0, wanted - len(staying))):
                self._simulators.append(Simulator(index, 0))
        now_s = time.monotonic()
        for simulator in list(self._simulators):
            leave_at_s = simulator.leave_at_s
            if leave_at_s is not None and (not simulator.in_flight or now_s > leave_at_s):
                self._end(simulator)
                self._simulators.remove(simulator)

    def _wanted(self) -> int:
        if isinstance(self._cluster.simulators, int):
            return self._cluster.simulators
        return max(1, simulators_that_fit(self._watch.nodes, self._cluster))

    def _dismiss(self, simulator: Simulator, reason: str) -> None:
        logger.info("simulator %d goes: %s", simulator.index, reason)
        simulator.leave_at_s = time.monotonic() + self._cluster.simulator_deadline_s


def simulator_options(cluster: ClusterConfig, nodes: list[Node]) -> Any:
    """The actor class of simulators with what each of them asks for."""
    return SimActor.options(
        num_cpus=cluster.simulator_cpus,
        runtime_env={"env_vars": SIM_ENVIRONMENT},
        label_selector=selector("sim", nodes),
    )


def _hear(simulator: Simulator, limit_s: float) -> bool:
    """Asks one that has delivered nothing for a while when it last made progress.

    Returns whether `heard_s` can be judged: it answered just now, or had enough time to answer.
    While the driver evaluates, nobody asks, and `heard_s` says nothing about the simulator.
    """
    now_s = time.monotonic()
    has_answered = simulator.asked is not None and bool(ray.wait([simulator.asked], timeout=0)[0])
    if has_answered:
        with contextlib.suppress(RayError):  # its blocks tell
            simulator.heard_s = max(simulator.heard_s, now_s - ray.get(simulator.asked))
        simulator.asked = None
    is_overdue = simulator.asked is not None and now_s - simulator.asked_s > ANSWER_S
    is_quiet = simulator.in_flight and now_s - simulator.heard_s > limit_s / 4
    if is_quiet and simulator.asked is None:
        simulator.asked, simulator.asked_s = simulator.actor.silent_s.remote(), now_s
    return has_answered or is_overdue


def is_lost_object(error: RayError) -> bool:
    """Says whether it was an object that died, and nobody's own doing."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, ObjectLostError)


def reason_of(error: RayError) -> str:
    """One line that says what happened to an actor."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    if getattr(error, "actor_init_failed", False):  # its cause comes as the end of a traceback
        return str(error).strip().splitlines()[-1]
    return type(error).__name__


def _node_of(simulator: Simulator) -> str | None:
    where = simulator.whereabouts
    if where is None or isinstance(where, Whereabouts):
        return where and where.node
    done, _ = ray.wait([where], timeout=0)
    if not done:
        return None
    try:
        simulator.whereabouts = ray.get(where)
    except RayError:
        return None  # its blocks tell
    return simulator.whereabouts.node
