"""A simulator in a process of its own: a shell around `rlcar.rollout`."""

import os

import ray

from rlcar.config import Config
from rlcar.rollout import Episodes
from rlcar.types import Trajectory, Weights


@ray.remote(max_restarts=0, max_task_retries=0)
class SimActor:
    """Drives N cars; `epoch` tells a replacement from its predecessor, so it drives other races."""

    def __init__(self, config: Config, index: int, epoch: int):
        # Imported here, so that JAX starts with this process's own settings (`SIM_ENVIRONMENT`).
        from rlcar.agent import make_agent
        from rlcar.rollout import Rollout
        from rlcar.sim import SPEC

        policy = make_agent(config, SPEC).policy
        self._rollout = Rollout(config, policy, first_car=index * config.training.cars, epoch=epoch)

    def collect(self, weights: Weights) -> tuple[Trajectory, Episodes]:
        """Drives one block; two objects, so that the block goes to the learner and not the driver."""
        return self._rollout.collect(weights)

    def process_id(self) -> int:
        """The process to look at, or to kill."""
        return os.getpid()


# Forty simulators must never touch the learner's card, and each is worth one core.
SIM_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "OMP_NUM_THREADS": "1",
}
