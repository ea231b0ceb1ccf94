"""How do rate, traffic and cost grow from 10 to 10,000 simulators? A model of the loop's events.

    python benchmarks/scale_model.py [--env-steps 6144]

The loop of `cluster.training.loop` as a discrete-event simulation: simulators with two blocks in
flight, a driver that hands finished blocks on while the learner's queue is short, one learner, one
network link of its host. The times of a block are measured first, each part separately. The model
is then checked against the real loop with one and two simulators on this machine's shared cores,
for the preset as it is (the learner is the limit) and with so little learning that driving is.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import simpy

_SLICE_S = 0.004  # time slice of a core that several processes want


class Costs(NamedTuple):
    """The time that each part of the work on one block takes, measured separately."""

    drive_s: float  # of a simulator's core
    learn_s: float  # of the learner: storing, train steps, new weights
    driver_s: float  # of the driver's core: to hand over a block and to request the next
    block_mb: float
    weights_mb: float
    env_steps: int
    drive_spread: float = 0.1  # standard deviation of the driving time over its mean


class Cluster(NamedTuple):
    """The machines that the loop runs on."""

    simulators: int
    shared_cores: int | None = None  # None: a core for each process
    blocks_in_flight: int = 2
    learner_queue: int = 3
    simulators_per_host: int = 64
    wire_mb_per_s: float = 1_250.0  # 10 Gbit/s
    core_hour_price: float = 0.04


class Prediction(NamedTuple):
    """The rates of the loop in its steady state."""

    env_steps_per_s: float
    learner_busy: float  # share of time
    simulators_busy: float
    lag_blocks: float  # learned between the weights that drove a block and the block itself
    wire_mb_per_s: float
    price_per_million_env_steps: float


class _Loop:
    """One simulation; its methods are the processes of the loop."""

    def __init__(self, costs: Costs, cluster: Cluster, seed: int):
        self.costs, self.cluster = costs, cluster
        self.env = simpy.Environment()
        self.random = random.Random(seed)
        shared = cluster.shared_cores
        self.cores = simpy.Resource(self.env, shared) if shared else None
        self.wire = simpy.Resource(self.env, 1)
        self.tasks = [simpy.Store(self.env) for _ in range(cluster.simulators)]
        self.done, self.blocks = simpy.Store(self.env), simpy.Store(self.env)
        self.learned = self.env.event()
        self.waiting = self.version = 0  # blocks handed to the learner; blocks learned from
        self.host_version = [-1] * (1 + cluster.simulators // cluster.simulators_per_host)
        self.busy_s = {"learner": 0.0, "simulators": 0.0}
        self.moved_mb, self.lag_sum = 0.0, 0
        self.env.process(self.learner())
        self.env.process(self.driver())
        for index in range(cluster.simulators):
            self.env.process(self.simulator(index))

    def work(self, seconds: float) -> Generator:
        """Uses a core for so long; processes take turns if there are too few cores."""
        if self.cores is None:
            yield self.env.timeout(seconds)
            return
        while seconds > 0:
            with self.cores.request() as core:
                yield core
                yield self.env.timeout(min(seconds, _SLICE_S))
            seconds -= _SLICE_S

    def move(self, size_mb: float) -> Generator:
        """Sends data over the network link of the learner's host."""
        self.moved_mb += size_mb
        with self.wire.request() as wire:
            yield wire
            yield self.env.timeout(size_mb / self.cluster.wire_mb_per_s)

    def simulator(self, index: int) -> Generator:
        """Drives the requested blocks, one at a time."""
        host = index // self.cluster.simulators_per_host
        while True:
            version = yield self.tasks[index].get()
            if self.host_version[host] < version:  # a host fetches each version once
                self.host_version[host] = version
                yield from self.move(self.costs.weights_mb)
            spread = self.random.gauss(1.0, self.costs.drive_spread)
            seconds = self.costs.drive_s * max(0.1, spread)
            yield from self.work(seconds)
            self.busy_s["simulators"] += seconds
            self.done.put((index, version))

    def driver(self) -> Generator:
        """Keeps every simulator busy while the learner keeps up."""
        for _ in range(self.cluster.blocks_in_flight):
            for tasks in self.tasks:
                tasks.put(0)
        while True:
            while self.waiting >= self.cluster.learner_queue:
                yield self.learned
            index, version = yield self.done.get()
            yield from self.work(self.costs.driver_s)
            self.waiting += 1
            self.blocks.put(version)
            self.tasks[index].put(self.version)

    def learner(self) -> Generator:
        """Learns from one block after another."""
        while True:
            version = yield self.blocks.get()
            yield from self.move(self.costs.block_mb)
            yield from self.work(self.costs.learn_s)
            self.busy_s["learner"] += self.costs.learn_s
            self.lag_sum += self.version - version
            self.version += 1
            self.waiting -= 1
            self.learned.succeed()
            self.learned = self.env.event()


def predict(costs: Costs, cluster: Cluster, *, seed: int = 0) -> Prediction:
    """Runs the model until its steady state, then as long again, and returns the rates."""
    loop = _Loop(costs, cluster, seed)
    slowest_s = max(
        costs.learn_s,
        costs.driver_s,
        costs.drive_s / cluster.simulators,
        costs.block_mb / cluster.wire_mb_per_s,
    )
    # Every simulator comes round a few times, or at least a few hundred blocks go by.
    span_s = max(3 * costs.drive_s, 300 * slowest_s)
    loop.env.run(until=span_s)
    before = (loop.version, dict(loop.busy_s), loop.moved_mb, loop.lag_sum)
    loop.env.run(until=2 * span_s)
    blocks = loop.version - before[0]
    rate = blocks * costs.env_steps / span_s
    busy = {name: loop.busy_s[name] - before[1][name] for name in loop.busy_s}
    cores = cluster.shared_cores or cluster.simulators + 2
    price_per_s = cores * cluster.core_hour_price / 3600
    return Prediction(
        env_steps_per_s=rate,
        learner_busy=busy["learner"] / span_s,
        simulators_busy=busy["simulators"] / span_s / cluster.simulators,
        lag_blocks=(loop.lag_sum - before[3]) / max(1, blocks),
        wire_mb_per_s=(loop.moved_mb - before[2]) / span_s,
        price_per_million_env_steps=1e6 * price_per_s / rate if rate else float("inf"),
    )


def measure_drive(preset: str, overrides: list[str]) -> dict[str, float]:
    """A simulator's seconds a block, and the sizes; in a process with a simulator's settings."""
    import numpy as np

    from rlcar.agents import make_agent
    from rlcar.config import make_config
    from rlcar.evaluation.environment import make_rollout
    from rlcar.sim import SPEC
    from rlcar.training.trainer import Trainer

    config = make_config(preset, overrides=overrides)
    agent = make_agent(config, SPEC)
    weights = Trainer(config, SPEC, agent).weights()
    rollout = make_rollout(config, agent.policy)
    blocks = [rollout.collect(weights)[0] for _ in range(3)]
    seconds = []
    for _ in range(20):
        began_s = time.perf_counter()
        rollout.collect(weights)
        seconds.append(time.perf_counter() - began_s)
    leaves = [np.asarray(leaf) for leaf in blocks[-1] if leaf is not None]
    arrays = _leaves(weights.params)
    return {
        "drive_s": sorted(seconds)[len(seconds) // 2],
        "block_mb": sum(leaf.nbytes for leaf in leaves) / 1e6,
        "weights_mb": sum(array.nbytes for array in arrays) / 1e6,
        "env_steps": int(blocks[-1].reward.size),
    }


def measure_learn(preset: str, overrides: list[str]) -> dict[str, float]:
    """The learner's seconds a block: storing, the train steps due, and the weights taken out."""
    from rlcar.agents import make_agent
    from rlcar.config import make_config
    from rlcar.evaluation.environment import make_rollout
    from rlcar.sim import SPEC
    from rlcar.training.trainer import Trainer

    config = make_config(preset, overrides=overrides)
    agent = make_agent(config, SPEC)
    trainer = Trainer(config, SPEC, agent)
    rollout = make_rollout(config, agent.policy)
    block, _ = rollout.collect(trainer.weights())

    def learn() -> None:
        trainer.insert(block)
        for _ in range(trainer.calls_due()):
            trainer.train()
        trainer.weights()

    while trainer.train_steps < 16:
        learn()
    began_s, count = time.perf_counter(), 24
    for _ in range(count):
        learn()
    return {"learn_s": (time.perf_counter() - began_s) / count}


def _leaves(tree: Any) -> list[Any]:
    import jax

    return list(jax.tree.leaves(tree))


def _measured_alone(part: str, preset: str, overrides: list[str]) -> dict[str, float]:
    from cluster.training.simulator import simulator_environment

    environment = simulator_environment() if part == "drive" else {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, "--measure", part, "--preset", preset]
    command += [word for override in overrides for word in ("--set", override)]
    said = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return dict(json.loads(said.stdout.strip().splitlines()[-1]))


def _real_rate(
    preset: str, overrides: list[str], env_steps: int, simulators: int
) -> tuple[float, float]:
    """Env steps a second of the real loop, and the driver's CPU seconds a block."""
    from ray_loop import ray_rate, undisturbed_config

    from rlcar.config import make_config

    base = undisturbed_config(preset, env_steps)
    learning = make_config(preset, overrides=overrides).replay
    config = base.model_copy(update={"replay": learning})
    block = config.training.cars * config.training.block_length
    with tempfile.TemporaryDirectory() as root:
        began_s = time.process_time()
        rate = ray_rate(config, Path(root) / "run", simulators)
        return rate, (time.process_time() - began_s) * block / env_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-steps", type=int, default=6144)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--measure", choices=("drive", "learn"))
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    if options.measure:
        measure = measure_drive if options.measure == "drive" else measure_learn
        print(json.dumps(measure(options.preset, options.set)))
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from header import print_header

    print_header("jax", "ray", "simpy")
    cores = len(os.sched_getaffinity(0))
    cases = {"as_it_is": [], "little_learning": ["replay.samples_per_insert=1"]}
    for case, overrides in cases.items():
        measured = _measured_alone("drive", options.preset, overrides)
        measured |= _measured_alone("learn", options.preset, overrides)
        env_steps = options.env_steps * (1 if case == "as_it_is" else 16)
        for simulators in (1, 2):
            real, driver_s = _real_rate(options.preset, overrides, env_steps, simulators)
            costs = Costs(**{**measured, "driver_s": driver_s})
            found = predict(costs, Cluster(simulators, shared_cores=cores))
            print(f"{case}, {simulators} simulators: {costs}")
            print(f"  real {real:.0f}, predicted {found.env_steps_per_s:.0f} env steps/s")
            print(f"figure {case}_{simulators}_simulators_real_env_steps_per_s={real:.4g}")
            ratio = found.env_steps_per_s / real
            print(f"figure {case}_{simulators}_simulators_predicted_over_real={ratio:.3g}")
        for simulators in (10, 100, 1_000, 10_000):
            found = predict(costs, Cluster(simulators))
            print(f"{case}, {simulators} simulators: {found}")
            for name in ("env_steps_per_s", "learner_busy", "wire_mb_per_s"):
                print(f"figure {case}_{simulators}_{name}={getattr(found, name):.4g}")
            price = found.price_per_million_env_steps
            print(f"figure {case}_{simulators}_dollars_per_million_env_steps={price:.4g}")


if __name__ == "__main__":
    main()
