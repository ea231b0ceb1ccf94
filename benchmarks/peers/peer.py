"""Env steps per CPU-second of one peer: `python peer.py NAME`, pinned to one core; prints the rate.

Runs in the peers' own environment and imports nothing of ours. Every peer drives at random, from
ready-made actions, and resets itself; the best of five runs counts.
"""

import os
import sys
import time

CORE = max(os.sched_getaffinity(0))
os.sched_setaffinity(0, {CORE})
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["SDL_VIDEODRIVER"] = "dummy"

RUNS = 5


def best_rate(run, env_steps):
    """Returns the best env steps per CPU-second."""
    run()
    rates = []
    for _ in range(RUNS):
        start_s = time.process_time()
        run()
        rates.append(env_steps / (time.process_time() - start_s))
    return max(rates)


def envpool_rate(name, steps):
    """EnvPool with 64 environments in one thread."""
    import envpool
    import numpy as np

    env = envpool.make(name, env_type="gymnasium", num_envs=64, num_threads=1, seed=0)
    env.reset()
    rng = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    actions = rng.uniform(low, high, (steps, 64, *env.action_space.shape)).astype(np.float32)

    def run():
        for action in actions:
            env.step(action)

    return best_rate(run, 64 * steps)


def gymnasium_rate(env, steps):
    """One Gymnasium environment."""
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(steps)]

    def run():
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return best_rate(run, steps)


def car_racing_physics():
    """Gymnasium's CarRacing without its picture: nothing else of it is left out."""
    import gymnasium
    import numpy as np

    env = gymnasium.make("CarRacing-v3").unwrapped
    picture = np.zeros((96, 96, 3), np.uint8)
    env._render = lambda mode: picture
    return gymnasium_rate(env, 2000)


def highway_racetrack():
    """highway-env's racetrack."""
    import gymnasium
    import highway_env  # noqa: F401

    return gymnasium_rate(gymnasium.make("racetrack-v0"), 100)


def gymnax_cartpole():
    """gymnax CartPole, 4,096 at once in one scan: what JAX leaves of a nearly empty step."""
    import gymnax
    import jax
    import jax.numpy as jnp

    env, parameters = gymnax.make("CartPole-v1")
    cars, steps = 4096, 256
    state = jax.vmap(env.reset, in_axes=(0, None))(
        jax.random.split(jax.random.key(0), cars), parameters
    )[1]

    @jax.jit
    def scan(state, key):
        def body(carry, _):
            state, key = carry
            key, action_key, step_key = jax.random.split(key, 3)
            action = jax.random.bernoulli(action_key, 0.5, (cars,)).astype(jnp.int32)
            keys = jax.random.split(step_key, cars)
            _, state, reward, _, _ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                keys, state, action, parameters
            )[:5]
            return (state, key), reward.sum()

        return jax.lax.scan(body, (state, key), None, length=steps)[1]

    key = jax.random.key(1)
    return best_rate(lambda: jax.block_until_ready(scan(state, key)), cars * steps)


PEERS = {
    "envpool_racetrack": lambda: envpool_rate("Racetrack-v0", 200),
    "envpool_car_racing": lambda: envpool_rate("CarRacing-v3", 20),
    "gymnasium_car_racing_physics": car_racing_physics,
    "highway_racetrack": highway_racetrack,
    "gymnax_cartpole": gymnax_cartpole,
}

if __name__ == "__main__":
    print(f"rate={PEERS[sys.argv[1]]():.5g}")
