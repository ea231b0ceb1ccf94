"""Does our PPO learn as Stable-Baselines3's does, on the same env with the same settings?

    python benchmarks/peers_learning.py --seeds 3     # needs the extra stable-baselines3

Both drive 16 cars of `rlcar/Race-v0`, learn from blocks of 128 steps with the defaults of SB3 and
its VecNormalize, and are compared by the reward of the last hundred episodes, a row every 10,000
env steps: mean over seeds with the 95 % interval of Student's t.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from header import print_header
from scipy import stats

ENV_STEPS = 50_000
EVERY = 10_000
CARS, BLOCK = 16, 128
Curve = list[float]


def ours(seed: int) -> Curve:
    """Returns the reward of an episode at every mark."""
    from rlcar.config import make_config
    from rlcar.metrics import read_metrics
    from rlcar.train import train

    overrides = [f"training.env_steps={ENV_STEPS}", "training.log_every_s=1e-9"]
    overrides += ["training.evaluate_every_env_steps=1000000"]
    overrides += [f"training.cars={CARS}", f"training.block_length={BLOCK}"]
    with tempfile.TemporaryDirectory() as name:
        train(make_config("ppo", overrides=overrides, seed=seed), Path(name))
        rows = [
            row for row in read_metrics(Path(name) / "metrics.jsonl") if "episode/reward" in row
        ]
    steps = [row["env_steps"] for row in rows]
    rewards = [row["episode/reward"] for row in rows]
    return np.interp(range(EVERY, ENV_STEPS + 1, EVERY), steps, rewards).tolist()


def stable_baselines3(seed: int) -> Curve:
    """The same of SB3."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    import rlcar.sim  # noqa: F401  registers the environment

    torch.set_num_threads(1)  # two threads on such small layers wait for each other
    steps: list[int] = []
    rewards: list[float] = []

    class Note(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            if self.model.ep_info_buffer:
                steps.append(self.num_timesteps)
                rewards.append(float(np.mean([one["r"] for one in self.model.ep_info_buffer])))

    cars = VecNormalize(make_vec_env("rlcar/Race-v0", n_envs=CARS, seed=seed))
    agent = PPO("MlpPolicy", cars, n_steps=BLOCK, seed=seed, device="cpu")
    agent.learn(ENV_STEPS, callback=Note())
    return np.interp(range(EVERY, ENV_STEPS + 1, EVERY), steps, rewards).tolist()


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds."""
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print_header("jax", "stable-baselines3", "torch")
    curves: dict[str, list[Curve]] = {}
    seconds: dict[str, float] = {}
    for name, learn in (("rlcar", ours), ("stable_baselines3", stable_baselines3)):
        started = time.perf_counter()
        curves[name] = [learn(seed) for seed in range(options.seeds)]
        seconds[name] = (time.perf_counter() - started) / options.seeds
    overlaps = 0
    marks = range(EVERY, ENV_STEPS + 1, EVERY)
    for index, mark in enumerate(marks):
        cells = {
            name: interval(np.array([curve[index] for curve in of_seeds]))
            for name, of_seeds in curves.items()
        }
        (mean, low, high), (peer, peer_low, peer_high) = cells.values()
        overlaps += low <= peer_high and peer_low <= high
        print(
            f"{mark:7,} env steps: ours {mean:6.1f} [{low:6.1f}, {high:6.1f}], "
            f"SB3 {peer:6.1f} [{peer_low:6.1f}, {peer_high:6.1f}]"
        )
    print(json.dumps(curves))
    print(f"figure ppo_intervals_overlap_share={overlaps / len(marks):.3g}")
    print(
        f"figure ppo_seconds_of_sb3_over_ours={seconds['stable_baselines3'] / seconds['rlcar']:.3g}"
    )


if __name__ == "__main__":
    main()
