"""A simulator in a process of its own: a shell around `rlcar.rollout.race`."""

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from rlcar.agents import make_agent
from rlcar.config import Config
from rlcar.devices.compile_cache import prepare_jax
from rlcar.evaluation.environment import Driving, make_rollout, spec_of
from rlcar.rollout.race import Episodes
from rlcar.storage.arrays import check_finite
from rlcar.system import heartbeat, logs
from rlcar.types import Trajectory, Weights


class Whereabouts(NamedTuple):
    """Where a process is."""

    node: str  # its id, as `ray.nodes` has it
    process: int


class SimulatorProcess:
    """Drives N cars; `epoch` tells a replacement from its predecessor, so it drives other races."""

    def __init__(self, config: Config, index: int, epoch: int):
        logs.take_over(f"simulator-{index}.{epoch}")
        prepare_jax()  # one that takes a dead one's place need not compile again
        # The learner sets the pace: where cores are scarce it goes first.
        os.nice(max(0, SIM_NICENESS - os.nice(0)))
        self._config, self._index, self._epoch = config, index, epoch
        self._rollout: Driving | None = None

    def collect(self, weights: Weights) -> tuple[Trajectory, Episodes]:
        """Drives one block; two objects, so that the block never passes through the driver.

        Raises NonFiniteError: a NaN ends here. A cancelled call ends at its next step where blocks
        may be long.
        """
        if self._rollout is None:  # here, as some renderers may only be used by one thread
            self._rollout = self._start()
        began_s = time.perf_counter()
        trajectory, episodes = self._rollout.collect(weights)
        check_finite({"observation": trajectory.observation, "reward": trajectory.reward})
        return trajectory, episodes._replace(busy_s=time.perf_counter() - began_s)

    def close(self) -> None:
        """Closes the environments, if any were made."""
        if self._rollout is not None:
            self._rollout.close()

    @ray.method(concurrency_group="control")
    def silent_s(self) -> float:
        """The time since its last sign of progress: a block of a slow environment takes minutes."""
        return heartbeat.progress().silent_s

    @ray.method(concurrency_group="control")
    def whereabouts(self) -> Whereabouts:
        """The process to look at, or to end."""
        return whereabouts()

    def _start(self) -> Driving:
        config = self._config
        policy = make_agent(config, spec_of(config)).policy
        first_car = self._index * config.training.cars
        return make_rollout(config, policy, first_car, self._epoch, _is_cancelled)


def _is_cancelled() -> bool:
    return bool(ray.get_runtime_context().is_canceled())


def close_simulators(actors: Sequence[Any], in_flight: Sequence[Any]) -> None:
    """Lets simulators close their environments before they are ended.

    Calls in `in_flight` are cancelled. Simulators that are still starting or hang are killed after
    `_CLOSE_S`.
    """
    with contextlib.suppress(RayError):
        for ref in in_flight:
            ray.cancel(ref)
        closing = [actor.close.remote() for actor in actors]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)


def whereabouts() -> Whereabouts:
    """Where the calling process is."""
    return Whereabouts(ray.get_runtime_context().get_node_id(), os.getpid())


SimActor: Any = ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 1})(
    SimulatorProcess
)

SIM_NICENESS = 10
_CLOSE_S = 5.0

# Forty simulators must never touch the learner's card, and each is worth one core.
SIM_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
}
