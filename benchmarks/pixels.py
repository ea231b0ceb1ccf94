"""How long until the world model plays Catch from pixels, beside a random player?

    python benchmarks/pixels.py [--seeds N]

`rlcar/Catch-v0` shows a ball that falls and a paddle in 16 x 16 pixels; an episode's reward is 1
for a catch and -1 for none. Starts `rlcar train --local --env rlcar/Catch-v0` for each seed, waits
for the first evaluation in which the policy catches three balls of four in 16 episodes (reward
0.5), and interrupts it. Compiling is in the time.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
from header import print_header
from timed_start import seconds_until

import rlcar.envs  # noqa: F401  registers Catch

LOOKS = ("--set", "training.evaluate_every_env_steps=1024")
LIMIT_S = 1200.0
EPISODES = 400


def random_reward() -> float:
    """Returns the mean reward of a player that acts at random."""
    env = gymnasium.make("rlcar/Catch-v0")
    env.action_space.seed(0)
    total = 0.0
    for episode in range(EPISODES):
        env.reset(seed=episode)
        is_over = False
        while not is_over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, is_over = total + float(reward), terminated or truncated
    return total / EPISODES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print_header("jax")
    steps: list[int] = []

    def catches(row: dict[str, Any]) -> bool:
        is_so = row.get("evaluation/episode_reward", -1.0) >= 0.5
        steps.extend([row["env_steps"]] if is_so else [])
        return is_so

    with tempfile.TemporaryDirectory() as folder:
        taken_s = [
            seconds_until(
                catches,
                Path(folder),
                f"catch-{seed}",
                *("--env", "rlcar/Catch-v0", "--seed", str(seed), *LOOKS),
                limit_s=LIMIT_S,
            )
            for seed in range(options.seeds)
        ]
    print(f"env steps {steps}, seconds {[round(one) for one in taken_s]}")
    print(f"figure random_reward={random_reward():.3g}")
    print(f"figure catch_env_steps={statistics.median(steps):.0f}")
    print(f"figure catch_s={statistics.median(taken_s):.3g}")
    print(f"figure catch_slowest_s={max(taken_s):.3g}")


if __name__ == "__main__":
    main()
