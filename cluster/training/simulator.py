"""A simulator in its own process: a shell around `rlcar.rollout`."""

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import ray
from ray import ObjectRef
from ray.actor import ActorClass
from ray.exceptions import RayError

from cluster.training.ray_calls import RemoteMethod, RemotePairMethod
from rlcar.agents import make_agent
from rlcar.config import Config
from rlcar.devices.compile_cache import prepare_jax
from rlcar.evaluation.environment import EnvironmentRollout, make_rollout, spec_of
from rlcar.rollout.compiled import Episodes
from rlcar.storage.arrays import check_finite
from rlcar.system import heartbeat, logs
from rlcar.types import Trajectory, Weights

# Added to a simulator's priority value: where cores are scarce, the learner goes first.
SIMULATOR_NICENESS = 10
_CLOSE_S = 5.0


def simulator_environment() -> dict[str, str]:
    """Returns the environment variables of a simulator's process.

    Simulators must never occupy the learner's GPU, and each of them uses one core. They keep the
    compiler options of this process.
    """
    compiler_options = os.environ.get("XLA_FLAGS", "").split()
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join([*compiler_options, "--xla_cpu_multi_thread_eigen=false"]),
        "OMP_NUM_THREADS": "1",
    }


class ProcessLocation(NamedTuple):
    """Where a process runs."""

    node_id: str  # as in `ray.nodes()`
    host: str
    pid: int

    def __str__(self) -> str:
        return f"{self.host} (node {self.node_id[:12]})"


class SimulatorProcess:
    """Drives N cars.

    `restart_id` distinguishes a replacement from its predecessor, so that it drives other races.
    """

    def __init__(self, config: Config, index: int, restart_id: int):
        logs.take_over(f"simulator-{index}.{restart_id}")
        prepare_jax()  # a replacement need not compile again
        os.nice(max(0, SIMULATOR_NICENESS - os.nice(0)))
        self._config, self._index, self._restart_id = config, index, restart_id
        self._rollout: EnvironmentRollout | None = None

    @ray.method(num_returns=2)
    def collect(self, weights: Weights) -> tuple[Trajectory, Episodes]:
        """Drives one block; two objects, so that the block never passes through the driver.

        Raises NonFiniteError for a NaN or an infinity in the block, which never leaves this
        process. Where one block may take long, a cancelled call ends at its next env step.
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
        """Returns the seconds since the last progress: a block of a slow environment takes long."""
        return heartbeat.sign_of_life().silent_s

    @ray.method(concurrency_group="control")
    def location(self) -> ProcessLocation:
        """Returns where this process runs."""
        return this_location()

    def _start(self) -> EnvironmentRollout:
        config = self._config
        policy = make_agent(config, spec_of(config)).policy
        first_car = self._index * config.training.cars
        return make_rollout(config, policy, first_car, self._restart_id, _is_cancelled)


class RemoteSimulator(Protocol):
    """The methods of `SimulatorProcess` as the driver calls them."""

    collect: RemotePairMethod[Trajectory, Episodes]
    close: RemoteMethod[None]
    silent_s: RemoteMethod[float]
    location: RemoteMethod[ProcessLocation]


def _is_cancelled() -> bool:
    return bool(ray.get_runtime_context().is_canceled())


def close_simulators(
    actors: Sequence[RemoteSimulator], in_flight: Sequence[ObjectRef[Any]]
) -> None:
    """Lets simulators close their environments before the caller kills them.

    Cancels the calls in `in_flight`. Gives up on simulators that are still starting or hang after
    `_CLOSE_S`.
    """
    with contextlib.suppress(RayError):
        for ref in in_flight:
            ray.cancel(ref)
        closing: list[ObjectRef[Any]] = [actor.close.remote() for actor in actors]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)


def this_location() -> ProcessLocation:
    """Returns where the calling process runs."""
    node_id = ray.get_runtime_context().get_node_id()
    return ProcessLocation(node_id, socket.gethostname(), os.getpid())


SimulatorActor: ActorClass[SimulatorProcess] = ray.remote(  # type: ignore[call-overload]
    max_restarts=0, max_task_retries=0, concurrency_groups={"control": 1}
)(SimulatorProcess)
