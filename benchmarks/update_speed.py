"""How fast is a train step of the world model compared with a plain version of the same maths?

The plain version is the obvious first one: autodiff through the filter, a GRU with one batched
product a layer, imagined steps that are all evaluated at once, one train step for each call, no
donated arguments, every metric fetched separately. Both versions compute what does not depend on
the filter before it starts. Both make the same update on the same batches; the ratio is plain over
ours, in float32 and with products in bfloat16. The public code needs 617 ms on two quiet cores for
the maths of `size1m` in float32, 905 ms in bfloat16.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
from header import print_header

from rlcar.agents import make_agent
from rlcar.agents.dreamer import layers, step_loss, world_model
from rlcar.config import Config, make_config
from rlcar.devices.data_parallel import over_devices
from rlcar.evaluation.environment import make_rollout
from rlcar.sim import SPEC
from rlcar.training.trainer import UPDATES_PER_CALL, Trainer
from rlcar.types import Batch

ROUNDS = 5
# The public size1m: 16 x 64 windows, dreams of 15 steps from all 1,024 states.
SIZE1M = ["replay.batch_size=16", "training.block_length=64"]


def random_batches(config: Config, updates: int) -> Batch:
    """Windows of noise: no operation takes longer or shorter for its numbers."""
    rng = np.random.default_rng(0)
    shape = updates, config.replay.batch_size, config.replay.batch_length
    never = np.zeros(shape, bool)
    return Batch(
        rng.random((*shape, SPEC.observation_size), np.float32),
        rng.uniform(-1, 1, (*shape, SPEC.action_size)).astype(np.float32),
        rng.random(shape, np.float32),
        never,
        never,
        never,
    )


def in_bfloat16(config: Config) -> Config:
    """The same with products in bfloat16."""
    dreamer = config.dreamer.model_copy(update={"precision": "bfloat16"})
    return config.model_copy(update={"dreamer": dreamer})


def ours(config: Config, devices: int = 1) -> Callable[[], int]:
    """Several train steps a call, the state donated; over several devices each has its rows."""
    learner = make_agent(config, SPEC).learner
    update = over_devices(learner.update, devices)
    batches = random_batches(config, UPDATES_PER_CALL)
    state = [learner.init(0)]

    def run() -> int:
        state[0], metrics = update(state[0], batches)
        jax.block_until_ready(metrics)
        return UPDATES_PER_CALL

    return run


def plain(config: Config) -> Callable[[], int]:
    """One train step a call, nothing donated, every metric fetched by itself."""
    learner = make_agent(config, SPEC).learner
    batches = random_batches(config, 1)
    state = [jax.jit(learner.init.__wrapped__)(0)]
    with (
        patch.object(world_model, "time_scan", autodiff_scan),
        patch.object(layers, "block_gru", layers.gru_batched),
        patch.object(step_loss, "CACHED_ROWS", sys.maxsize),
    ):
        update = jax.jit(learner.update.__wrapped__).lower(state[0], batches).compile()

    def run() -> int:
        state[0], metrics = update(state[0], batches)
        for value in metrics.values():
            float(value)
        return 1

    return run


def autodiff_scan(step: Callable, params: Any, start: Any, inputs: Any) -> Any:
    """What `time_scan` is in place of."""

    def keep(state: Any, x: Any) -> tuple:
        after, output = step(params, state, x)
        return after, (after, output)

    return jax.lax.scan(keep, start, inputs)[1]


def whole(config: Config) -> Callable[[], int]:
    """The one-process loop: driving, replay, train steps, weights back to the cars."""
    agent = make_agent(config, SPEC)
    trainer, rollout = Trainer(config, SPEC, agent), make_rollout(config, agent.policy)

    def run() -> int:
        before = trainer.train_steps
        while trainer.train_steps == before:
            trajectory, _ = rollout.collect(trainer.weights())
            trainer.insert(trajectory)
            for _ in range(trainer.calls_due()):
                trainer.train()
        return trainer.train_steps - before

    return run


def milliseconds(*runs: Callable[[], int]) -> list[float]:
    """The best of a few rounds for one train step, the runs taking turns."""
    best = [np.inf] * len(runs)
    for run in runs:
        run()
    for _ in range(ROUNDS):
        for index, run in enumerate(runs):
            started = time.perf_counter()
            updates = run()
            best[index] = min(best[index], 1e3 * (time.perf_counter() - started) / updates)
    return best


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print_header("jax")
    cases = {"size1m": make_config("small", overrides=SIZE1M), "nano": make_config("nano")}
    for name, config in cases.items():
        runs = ours(config), ours(in_bfloat16(config)), plain(config)
        ours_ms, mixed_ms, plain_ms = milliseconds(*runs)
        print(f"{name}: {ours_ms:.1f} ms, in bfloat16 {mixed_ms:.1f}, plain {plain_ms:.1f}")
        print(f"figure {name}_update_ms={ours_ms:.4g}")
        print(f"figure {name}_bfloat16_update_ms={mixed_ms:.4g}")
        print(f"figure {name}_plain_over_ours={plain_ms / ours_ms:.4g}")
        print(f"figure {name}_plain_over_bfloat16={plain_ms / mixed_ms:.4g}")
    nano = cases["nano"]
    loop_ms, mixed_ms = milliseconds(whole(nano), whole(in_bfloat16(nano)))
    print(f"figure nano_update_with_env_steps_ms={loop_ms:.4g}")
    print(f"figure nano_bfloat16_update_with_env_steps_ms={mixed_ms:.4g}")


if __name__ == "__main__":
    main()
