"""How exact and how fast is the lander, beside Basilisk, from the same states in the same run?

Exactness: 1,000 flights of 10 s from random states with random actions. Speed: two processes, one
for each core, fly 1,024 landers each with the guidance law, with resets, observations and rewards.
Without Basilisk (extra `basilisk`) only the speed is measured, and no result file is written.
"""

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
from header import origin, print_header

from rlcar.errors import UserError

RESULT = Path(__file__).parent / "results" / "lander_physics.json"
PROCESSES, LANDERS, STEPS, ROUNDS, FLIGHTS = 2, 1_024, 200, 12, 1_000


def fly_landers(core: int) -> tuple[float, float]:
    """Returns the env steps per second of wall time and of CPU time of one process."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})
    import jax
    import jax.numpy as jnp

    from rlcar.envs.lander import LanderSettings
    from rlcar.envs.lander.environment import make_lander
    from rlcar.envs.lander.guidance import guidance_action
    from rlcar.envs.lander.observation import motion_of

    lander = make_lander(LanderSettings(scenario="stage-3"))

    def step(carry, _):
        state, observation = carry
        action = guidance_action(jnp, motion_of(jnp, observation))
        state, time_step, _ = lander.step(state, action)
        return (state, time_step.observation), time_step.reward.sum()

    block = jax.jit(lambda carry: jax.lax.scan(step, carry, None, STEPS))
    state, time_step = jax.jit(lander.reset)(jnp.arange(LANDERS), jnp.int32(core))
    carry, _ = jax.block_until_ready(block((state, time_step.observation)))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(ROUNDS):
        carry, _ = jax.block_until_ready(block(carry))
    steps = ROUNDS * STEPS * LANDERS
    return steps / (time.perf_counter() - wall_s), steps / (time.process_time() - cpu_s)


def main() -> None:
    """Measures, prints the figures, and writes the result file."""
    print_header("jax", "numpy")
    load = os.getloadavg()[0]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        rates = pool.map(fly_landers, range(PROCESSES), chunksize=1)
    wall, per_cpu_second = sum(rate[0] for rate in rates), np.mean([rate[1] for rate in rates])
    figures = {"env_steps_per_s": wall, "env_steps_per_cpu_s": float(per_cpu_second)}

    from rlcar.envs.lander.reference import compare

    try:
        comparison = compare(FLIGHTS, np.random.default_rng(0))
    except UserError as error:
        print(f"no comparison: {error}")
    else:
        figures |= {
            "twin_error_m_s": comparison.error_m_s,
            "twin_error_m": comparison.error_m,
            "basilisk_steps_per_cpu_s": comparison.basilisk_steps_per_s,
            "times_basilisk": float(per_cpu_second) / comparison.basilisk_steps_per_s,
        }
        result = {
            "origin": origin(load),
            "landers": LANDERS,
            "processes": PROCESSES,
            "flights": FLIGHTS,
            **figures,
        }
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for name, value in figures.items():
        print(f"figure {name}={value:.6g}")


if __name__ == "__main__":
    main()
