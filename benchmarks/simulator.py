"""How many env steps one core simulates in a second of CPU time, driving and resetting.

    python benchmarks/simulator.py [batch sizes, default 64 1024 4096]

Every car drives its own track with a steering policy that really laps; the JAX race runs inside
one `lax.scan`. The peer, in the same run, is the same source over NumPy. Further figures, each with
resets: the grand prix, a 2 x 64 network that acts inside the scan, and the two Gymnasium faces.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

CORE = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
if CORE is not None:
    os.sched_setaffinity(0, {CORE})  # before JAX starts its threads
os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=false {os.environ.get('XLA_FLAGS', '')}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from header import print_header  # noqa: E402

from rlcar.config import make_race_config  # noqa: E402
from rlcar.config.race import RaceConfig  # noqa: E402
from rlcar.devices.selection import disable_async_dispatch  # noqa: E402
from rlcar.sim import make_race  # noqa: E402
from rlcar.sim.backend import COMPILER_OPTIONS  # noqa: E402
from rlcar.sim.gym_env import RaceEnv  # noqa: E402
from rlcar.sim.vector_env import RaceVectorEnv  # noqa: E402
from rlcar.track import TRACK_SETS, make_pool  # noqa: E402

SCAN_STEPS = 256  # a lap is about 265: resets are spread over the calls
REPEATS = 8
NUMPY_STEPS = 40


def drive(observation: Any, xp: Any) -> Any:
    """Steers towards the side with more room, at full throttle; `[N, 2]`."""
    left = observation[:, 4] + observation[:, 3] - observation[:, 1] - observation[:, 0]
    return xp.stack([xp.clip(2 * left, -1, 1), xp.ones_like(left)], axis=1)


def best_rate(run: Callable[[], int], repeats: int) -> tuple[float, float]:
    """Returns the best and the median env steps per CPU-second of `repeats` runs."""
    rates = []
    for _ in range(repeats):
        start_s = time.process_time()
        env_steps = run()
        rates.append(env_steps / (time.process_time() - start_s))
    return max(rates), float(np.median(rates))


def main(batches: list[int]) -> None:
    # The environments disable it too, but without effect once JAX has computed something.
    disable_async_dispatch()
    config = RaceConfig()
    start_s = time.process_time()
    every_track = make_pool(TRACK_SETS["train"], config.track)
    pool_s = time.process_time() - start_s
    pool = make_pool(TRACK_SETS["train"][: max(batches)], config.track)  # one for each car
    print_header("jax", "numpy")
    print(f"figure tracks_per_cpu_second={len(every_track.seeds) / pool_s:.4g}")

    race = make_race(config, pool)
    for cars in batches:
        best, median, told = scan_rate(race, cars)
        print(f"batch {cars}: {told}")
        print(f"figure env_steps_per_cpu_second_{cars}={best:.4g}")
        print(f"figure env_steps_per_cpu_second_median_{cars}={median:.4g}")
        if cars == 1024:
            peer = numpy_rate(config, pool, cars)
            print(f"figure env_steps_per_cpu_second_numpy_{cars}={peer:.4g}")
            print(f"figure ratio_to_numpy_{cars}={best / peer:.3g}")
    full = scan_rate(make_race(config, every_track), max(batches))[0]
    print(f"figure env_steps_per_cpu_second_{max(batches)}_of_10000_tracks={full:.4g}")
    hard = make_race_config("grand-prix")
    hard_race = make_race(hard, make_pool(range(2000), hard.track))
    print(f"figure grand_prix_env_steps_per_cpu_second_4096={scan_rate(hard_race, 4096)[0]:.4g}")
    print(f"figure network_env_steps_per_cpu_second_256={scan_rate(race, 256, network())[0]:.4g}")
    print(f"figure vector_env_env_steps_per_cpu_second_1024={vector_env_rate(1024):.4g}")
    print(f"figure gymnasium_env_steps_per_cpu_second={gymnasium_rate():.4g}")


def network() -> Callable[[Any, Any], Any]:
    """Returns a policy of two hidden layers of 64 units, with random weights."""
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = ((6, 64), (64, 64), (64, 2))
    weights = [
        jax.random.normal(key, size) * size[0] ** -0.5
        for key, size in zip(keys, sizes, strict=True)
    ]

    def act(observation: Any, xp: Any) -> Any:
        hidden = jnp.tanh(jnp.tanh(observation @ weights[0]) @ weights[1])
        return jnp.tanh(hidden @ weights[2]) * 0.01 + drive(observation, jnp)

    return act


def scan_rate(
    race: Any, cars: int, act: Callable[[Any, Any], Any] = drive
) -> tuple[float, float, str]:
    """Returns the best and the median rate of one scan, and what happened in it."""

    def scan(state: Any, observation: Any) -> Any:
        def body(carry: Any, _: None) -> Any:
            state, observation = carry
            state, time_step, events = race.step(state, act(observation, jnp))
            told = (time_step.reward.sum(), events.is_finish.sum(), events.is_crash.sum())
            return (state, time_step.observation), told

        return jax.lax.scan(body, (state, observation), None, length=SCAN_STEPS)

    compiled = jax.jit(scan, compiler_options=COMPILER_OPTIONS)
    carry = race.reset(jnp.arange(cars, dtype=jnp.int32), 0)
    carry = (carry[0], carry[1].observation)
    start_s = time.perf_counter()
    carry, _ = jax.block_until_ready(compiled(*carry))
    compile_s = time.perf_counter() - start_s
    laps = crashes = 0

    def run() -> int:
        nonlocal carry, laps, crashes
        carry, (_, finishes, crashed) = jax.block_until_ready(compiled(*carry))
        laps, crashes = laps + int(finishes.sum()), crashes + int(crashed.sum())
        return cars * SCAN_STEPS

    best, median = best_rate(run, REPEATS)
    return best, median, f"laps {laps}, crashes {crashes}, first call {compile_s:.1f} s"


def vector_env_rate(cars: int) -> float:
    """Returns the best rate of the vector environment, NumPy in and out."""
    env = RaceVectorEnv(cars)
    observation, _ = env.reset(seed=0)

    def run() -> int:
        nonlocal observation
        for _ in range(300):
            observation, *_ = env.step(drive(observation, np))
        return cars * 300

    run()
    return best_rate(run, 4)[0]


def gymnasium_rate() -> float:
    """Returns the best rate of the single environment."""
    env = RaceEnv()
    observation, _ = env.reset(seed=0)

    def run() -> int:
        nonlocal observation
        for _ in range(500):
            right, half_right, _, half_left, left, _ = observation.tolist()
            steering = 2 * (left + half_left - half_right - right)  # `drive`, cheaper for one car
            action = np.array([min(max(steering, -1.0), 1.0), 1.0], np.float32)
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                observation, _ = env.reset()
        return 500

    return best_rate(run, 4)[0]


def numpy_rate(config: RaceConfig, pool: Any, cars: int) -> float:
    """Returns the best rate of the same race over NumPy."""
    race = make_race(config, pool, xp=np)
    state, time_step = race.reset(np.arange(cars, dtype=np.int32), 0)

    def run() -> int:
        nonlocal state, time_step
        for _ in range(NUMPY_STEPS):
            state, time_step, _ = race.step(state, drive(time_step.observation, np))
        return cars * NUMPY_STEPS

    return best_rate(run, 3)[0]


if __name__ == "__main__":
    main([int(batch) for batch in sys.argv[1:]] or [64, 1024, 4096])
