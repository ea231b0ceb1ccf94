"""What does a train call wait longer for its batches when the replay lies in other processes?

    python benchmarks/replay_shards.py

The replay of `nano` (vectors) and one of images of 64 x 64, full, drawn from as a train call does:
in this process, and over two shards beside it. One machine: the network between nodes is not in it.
"""

import os
import statistics
import time

import numpy as np
import ray
from header import print_header

from cluster.config import ClusterConfig
from cluster.replay_shards import ReplayShards, rings_on
from rlcar.config import Config, make_config
from rlcar.environment import spec_of
from rlcar.replay import Replay
from rlcar.trainer import UPDATES_PER_CALL
from rlcar.types import Spec, Trajectory

ROUNDS, CARS, ENV_STEPS = 40, 16, 16_384
CASES = {
    "nano": make_config("nano", overrides=[f"replay.capacity_env_steps={ENV_STEPS}"]),
    "images": make_config(
        overrides=["environment.id=rlcar/Catch-v0", f"replay.capacity_env_steps={ENV_STEPS}"]
    ),
}


def _filled(config: Config, spec: Spec, slots: object) -> Replay:
    replay = Replay(config.replay, spec, config.training.block_length, 0, slots)
    rng, shape = np.random.default_rng(0), (config.training.block_length, CARS)
    never = np.zeros(shape, np.bool_)
    for _ in range(ENV_STEPS // (shape[0] * CARS)):
        image = spec.image_shape and rng.integers(256, size=(*shape, *spec.image_shape)).astype(
            "u1"
        )
        replay.insert(
            Trajectory(
                observation=rng.random((*shape, spec.observation_size), np.float32),
                previous_action=rng.random((*shape, spec.action_size), np.float32),
                reward=rng.random(shape, np.float32),
                is_first=never,
                is_last=never,
                is_terminal=never,
                weights_version=np.zeros(shape, np.int32),
                image=image,
            )
        )
    return replay


def _measure(name: str, config: Config) -> None:
    spec = spec_of(config)
    shards = ReplayShards(config, ClusterConfig(replay_shards=2))
    updates = 1 if spec.image_shape else UPDATES_PER_CALL
    slots = {"here": None, "sharded": rings_on(shards.actors, config, 60.0)}
    replays = {where: _filled(config, spec, one) for where, one in slots.items()}
    times_ms: dict[str, list[float]] = {where: [] for where in slots}
    for _ in range(ROUNDS):
        for where, replay in replays.items():
            began_s = time.perf_counter()
            batch = replay.sample(updates)
            times_ms[where].append(1e3 * (time.perf_counter() - began_s))
    shards.stop()
    here_ms, sharded_ms = (statistics.median(times_ms[where]) for where in ("here", "sharded"))
    megabytes = sum(leaf.nbytes for leaf in batch if leaf is not None) / 1e6
    print(f"{name}: {megabytes:.2f} MB a call, here {here_ms:.2f} ms, sharded {sharded_ms:.2f} ms")
    print(f"figure {name}_sharded_over_here={sharded_ms / here_ms:.3g}")
    print(f"figure {name}_sharded_ms={sharded_ms:.3g}")


def main() -> None:
    """Measures both."""
    print_header("ray", "numpy")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    for name, config in CASES.items():
        _measure(name, config)
    ray.shutdown()


if __name__ == "__main__":
    main()
