"""The simulators: keeps each of them busy, replaces the dead and the silent."""

import dataclasses
import logging
import time
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.config import ClusterConfig
from cluster.sim_actor import SIM_ENVIRONMENT, SimActor
from rlcar.config import Config
from rlcar.errors import UserError
from rlcar.metrics import Rate
from rlcar.rollout import Episodes

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Simulator:
    """One simulator as the driver sees it."""

    index: int
    epoch: int
    actor: Any
    heard_s: float  # when it last delivered, or began
    in_flight: dict[Any, Any]  # ref of the episodes -> ref of the trajectory, oldest first
    has_delivered: bool = False
    failures: int = 0  # in a row, without a block between them


class Fleet:
    """Holds N simulators; `blocks` yields what they finished and never waits for a straggler."""

    def __init__(self, config: Config, cluster: ClusterConfig, number: int, epoch: int = 0):
        """`epoch` to begin with: a resumed training gives another one, and so drives new races."""
        self._config, self._cluster = config, cluster
        self._config_ref = ray.put(config)
        self._simulators = [self._start(index, epoch) for index in range(number)]
        self.restarts = 0
        self._busy = Rate()

    def process_ids(self) -> list[int]:
        """One a simulator, for an operator (or a test) to look at."""
        return ray.get([simulator.actor.process_id.remote() for simulator in self._simulators])

    def delivering(self) -> int:
        """How many simulators have delivered a block since they were started."""
        return sum(simulator.has_delivered for simulator in self._simulators)

    def busy_share(self) -> float:
        """Of the last seconds of all simulators, the share that they drove in."""
        return min(1.0, self._busy.per_s() / len(self._simulators))

    def feed(self, weights: Any) -> None:
        """Tops every simulator up to its blocks in flight, with the newest `weights` (a ref)."""
        for simulator in self._simulators:
            while len(simulator.in_flight) < self._cluster.blocks_in_flight:
                if not simulator.in_flight:
                    simulator.heard_s = time.monotonic()
                collect = simulator.actor.collect.options(num_returns=2)
                trajectory, episodes = collect.remote(weights)
                simulator.in_flight[episodes] = trajectory

    def blocks(self, timeout_s: float) -> Iterator[tuple[Any, Episodes]]:
        """Yields (ref of the trajectory, episodes) of what is done within `timeout_s`."""
        owner = {ref: one for one in self._simulators for ref in one.in_flight}
        if owner:
            refs = list(owner)
            done, _ = ray.wait(refs, num_returns=1, timeout=timeout_s, fetch_local=True)
            if done:  # whatever else is ready by now comes along
                done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            for ref in done:
                simulator = owner[ref]
                trajectory = simulator.in_flight.pop(ref, None)
                if trajectory is None:
                    continue  # its simulator was replaced a moment ago
                try:
                    episodes = ray.get(ref)
                except RayError as error:
                    self._replace(simulator, _reason(error))
                    continue
                self._busy.add(episodes.busy_s)
                simulator.heard_s = time.monotonic()
                simulator.has_delivered, simulator.failures = True, 0
                yield trajectory, episodes
        self._replace_silent()

    def stop(self) -> None:
        """Ends every simulator; what they were driving is lost."""
        for simulator in self._simulators:
            ray.kill(simulator.actor)

    def _replace_silent(self) -> None:
        # Ray says nothing for a minute when a host is cut off: our own clock decides.
        for simulator in self._simulators:
            limit_s = (
                self._cluster.simulator_deadline_s
                if simulator.has_delivered
                else self._cluster.start_deadline_s
            )
            silence_s = time.monotonic() - simulator.heard_s
            if simulator.in_flight and silence_s > limit_s:
                self._replace(simulator, f"silent for {silence_s:.0f} s (limit {limit_s:.0f} s)")

    def _replace(self, simulator: Simulator, reason: str) -> None:
        logger.warning("simulator %d is replaced: %s", simulator.index, reason)
        self.restarts += 1
        failures = simulator.failures + 1
        if failures > self._cluster.most_restarts_in_a_row:
            raise UserError(
                f"simulator {simulator.index} failed {failures} times without delivering a block; "
                f"the last reason: {reason}"
            )
        ray.kill(simulator.actor)
        simulator.in_flight.clear()  # one death, however many of its blocks report it
        fresh = self._start(simulator.index, simulator.epoch + 1)
        fresh.failures = failures
        self._simulators[self._simulators.index(simulator)] = fresh

    def _start(self, index: int, epoch: int) -> Simulator:
        actor = SimActor.options(
            num_cpus=self._cluster.simulator_cpus,
            runtime_env={"env_vars": SIM_ENVIRONMENT},
        ).remote(self._config_ref, index, epoch)
        return Simulator(index, epoch, actor, time.monotonic(), {})


def _reason(error: RayError) -> str:
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    if getattr(error, "actor_init_failed", False):  # its cause comes as the end of a traceback
        return str(error).strip().splitlines()[-1]
    return type(error).__name__
