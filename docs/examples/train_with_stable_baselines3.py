"""Trains on the racing environment with SAC of Stable-Baselines3, then drives unseen tracks.

pip install "rlcar[stable-baselines3]"
python docs/examples/train_with_stable_baselines3.py --env-steps 20000
"""

import argparse

import gymnasium
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

import rlcar.sim  # noqa: F401  registers rlcar/Race-v0 and rlcar/GrandPrix-v0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="classic", help="world of rlcar (default: classic)")
    parser.add_argument("--env-steps", type=int, default=20_000, help="length of the training")
    parser.add_argument("--tracks", type=int, default=16, help="number of test tracks to drive")
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments and of SAC")
    options = parser.parse_args()

    cars = make_vec_env(
        "rlcar/Race-v0", n_envs=4, seed=options.seed, env_kwargs={"world": options.world}
    )
    agent = SAC("MlpPolicy", cars, gradient_steps=4, learning_starts=1000, seed=options.seed)
    agent.learn(options.env_steps, progress_bar=False)

    env = gymnasium.make("rlcar/Race-v0", world=options.world, track_set="test")
    laps = 0
    for track_seed in range(20_000, 20_000 + options.tracks):
        observation, info = env.reset(options={"track_seed": track_seed})
        is_over = False
        while not is_over:
            action, _ = agent.predict(observation, deterministic=True)
            observation, _, terminated, truncated, info = env.step(action)
            is_over = terminated or truncated
        laps += info["lap_time"] > 0
    print(
        f"SAC lapped {laps} of {options.tracks} unseen tracks after {options.env_steps} env steps"
    )


if __name__ == "__main__":
    main()
