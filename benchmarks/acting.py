"""How long does NumPy take to act for one car, beside the compiled JAX policy?

Both drive the same observations with the same parameters; the fastest of many calls counts, which
is what a call costs when nobody else wants the core.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as rlcar serve has it
os.environ["JAX_PLATFORMS"] = "cpu"

import time
from collections.abc import Callable

import jax
import numpy as np
from header import print_header

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.config.schema import schema_of_race
from rlcar.registry import Model, Version
from rlcar.sim import SPEC
from rlcar.storage.arrays import flatten
from rlcar.types import TimeStep
from serve.policy.policy import make_policy

PRESETS = ("nano", "small", "documented", "recurrent-ppo", "sac")
CALLS = 2000


def fastest_us(act: Callable[[], None]) -> float:
    """Returns the shortest of `CALLS` calls, in microseconds."""
    times_s = []
    for _ in range(CALLS):
        began_s = time.perf_counter()
        act()
        times_s.append(time.perf_counter() - began_s)
    return 1e6 * min(times_s)


def measure(preset: str, cars: int) -> tuple[float, float]:
    """Returns the microseconds of one act in NumPy and in JAX."""
    config = make_config(preset)
    agent = make_agent(config, SPEC)
    params = jax.device_get(agent.learner.policy_params(agent.learner.init(0)))
    observation, action = schema_of_race(config)
    about = {"config": config.model_dump(), "observation": observation, "action": action}
    policy = make_policy(Model(Version(0, "", about, {}), flatten(params)))
    seen = np.random.default_rng(0).random((cars, 6), np.float32)
    never = np.zeros(cars, bool)
    state = policy.initial_state(cars)
    numpy_us = fastest_us(lambda: policy.act(state, seen, never))

    jax_act = jax.jit(agent.policy.act, static_argnums=4)
    on_device, memory, key = jax.device_put(params), agent.policy.initial(cars), jax.random.key(0)
    step = TimeStep(seen, np.zeros(cars, np.float32), never, never, never)
    np.asarray(jax_act(on_device, memory, step, key, False)[1])
    jax_us = fastest_us(lambda: np.asarray(jax_act(on_device, memory, step, key, False)[1]))
    return numpy_us, jax_us


def main() -> None:
    """Prints the table and the figures."""
    print_header("numpy", "jax")
    for preset in PRESETS:
        for cars in (1, 64):
            numpy_us, jax_us = measure(preset, cars)
            ratio = jax_us / numpy_us
            print(f"{preset:14} {cars:3} cars: NumPy {numpy_us:7.1f} us, JAX {jax_us:7.1f} us")
            name = f"{preset.replace('-', '_')}_{cars}"
            print(f"figure act_numpy_us_{name}={numpy_us:.1f}")
            print(f"figure act_jax_over_numpy_{name}={ratio:.2f}")


if __name__ == "__main__":
    main()
