"""Trains on the racing environment with PPO of RLlib.

pip install "rlcar[rllib]"
python docs/examples/train_with_rllib.py --iterations 20
"""

import argparse

import gymnasium
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env


def make_env(settings: dict) -> gymnasium.Env:
    """Makes the environment in a process of RLlib, in which rlcar is not imported yet."""
    import rlcar.sim  # noqa: F401

    return gymnasium.make("rlcar/Race-v0", **settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="classic", help="world of rlcar (default: classic)")
    parser.add_argument("--iterations", type=int, default=20, help="number of training iterations")
    parser.add_argument("--batch", type=int, default=4000, help="env steps in each iteration")
    options = parser.parse_args()

    ray.init(address="local", include_dashboard=False)
    register_env("rlcar", make_env)
    config = (
        PPOConfig()
        .environment("rlcar", env_config={"world": options.world})
        .env_runners(num_env_runners=1)
        .training(train_batch_size_per_learner=options.batch)
    )
    algorithm = config.build_algo()
    for iteration in range(options.iterations):
        runners = algorithm.train()["env_runners"]
        print(
            f"iteration {iteration}: {runners['num_env_steps_sampled_lifetime']:.0f} env steps, "
            f"mean return {runners.get('episode_return_mean', float('nan')):.1f}",
            flush=True,
        )
    algorithm.stop()


if __name__ == "__main__":
    main()
