"""What does a train call wait for its batches when the replay lies elsewhere than in its process?

    python benchmarks/replay_places.py

The replay of `nano` (vectors) and one of images of 64 x 64, full, drawn from as a train call does,
until the batches are in the learner's device: from this process, from two shards beside it, and
from that device itself. One machine: the network between nodes is not in it.
"""

import os
import statistics
import time

import jax
import numpy as np
import ray
from header import print_header

from cluster.config import ClusterConfig
from cluster.training.replay_shards import ReplayShards, rings_on
from rlcar.config import Config, make_config
from rlcar.devices.selection import to_learner
from rlcar.evaluation.environment import spec_of
from rlcar.replay import Replay, capacity_in_slots
from rlcar.replay.device_rings import DeviceRings
from rlcar.training.trainer import UPDATES_PER_CALL
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
    block_length = config.training.block_length
    slots = {
        "here": None,
        "sharded": rings_on(shards.actors, config, 60.0),
        "device": DeviceRings(spec, block_length, capacity_in_slots(config.replay, block_length)),
    }
    replays = {where: _filled(config, spec, one) for where, one in slots.items()}
    times_ms: dict[str, list[float]] = {where: [] for where in slots}
    for _ in range(ROUNDS):
        for where, replay in replays.items():
            began_s = time.perf_counter()
            batch = jax.block_until_ready(to_learner(jax.device_put(replay.sample(updates))))
            times_ms[where].append(1e3 * (time.perf_counter() - began_s))
    shards.stop()
    took_ms = {where: statistics.median(times) for where, times in times_ms.items()}
    said = ", ".join(f"{where} {ms:.2f} ms" for where, ms in took_ms.items())
    megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(batch)) / 1e6
    print(f"{name}: {megabytes:.2f} MB a call, {said}")
    for where in ("sharded", "device"):
        print(f"figure {name}_{where}_over_here={took_ms[where] / took_ms['here']:.3g}")
        print(f"figure {name}_{where}_ms={took_ms[where]:.3g}")
    places_kb = 2 * 4 * updates * config.replay.batch_size / 1e3  # slot and start, int32
    print(f"figure {name}_bytes_over_places={1e3 * megabytes / places_kb:.3g}")


def main() -> None:
    """Measures both."""
    print_header("ray", "numpy", "jax")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    for name, config in CASES.items():
        _measure(name, config)
    ray.shutdown()


if __name__ == "__main__":
    main()
