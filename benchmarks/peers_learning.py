"""Do our PPO, SAC and TD3 learn as Stable-Baselines3's do, on the same env with the same settings?

    python benchmarks/peers_learning.py --seeds 3     # needs the extra stable-baselines3

Both drive `rlcar/Race-v0` with the settings of SB3's defaults: PPO 16 cars in blocks of 128 steps
under VecNormalize; SAC and TD3 8 cars in blocks of 16 and one update for each of their env steps.
They are compared by the reward of the last hundred episodes, a row at every mark: mean over seeds
with the 95 % interval of Student's t.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from header import print_header
from scipy import stats

Curve = list[float]


class Comparison(NamedTuple):
    """One algorithm on both sides."""

    env_steps: int
    every: int  # env steps from one mark to the next
    cars: int
    overrides: tuple[str, ...]  # of ours: what SB3's defaults are and ours are not

    @property
    def marks(self) -> range:
        return range(self.every, self.env_steps + 1, self.every)


# SB3 draws its first actions by chance, so many of them before it learns.
FIRST_ENV_STEPS = 256
BLOCK_LENGTH = 16  # steps of each car, then as many updates as env steps
_ONE_EACH = (f"replay.min_env_steps={FIRST_ENV_STEPS}", f"training.block_length={BLOCK_LENGTH}")
COMPARISONS = {
    "ppo": Comparison(50_000, 10_000, 16, ("training.block_length=128",)),
    "sac": Comparison(10_000, 2_000, 8, _ONE_EACH),
    "td3": Comparison(10_000, 2_000, 8, (*_ONE_EACH, "td3.learning_rate=1e-3")),
}


def ours(algorithm: str, seed: int) -> Curve:
    """Returns the reward of an episode at every mark."""
    from rlcar.config import make_config
    from rlcar.runs.metrics_file import read_metrics
    from rlcar.training.loop import train

    asked = COMPARISONS[algorithm]
    overrides = [f"training.env_steps={asked.env_steps}", "training.log_every_s=1e-9"]
    overrides += ["training.evaluate_every_env_steps=1000000", f"training.cars={asked.cars}"]
    with tempfile.TemporaryDirectory() as name:
        config = make_config(algorithm, overrides=[*overrides, *asked.overrides], seed=seed)
        train(config, Path(name))
        rows = read_metrics(Path(name) / "metrics.jsonl")
    rows = [row for row in rows if row.get("episode/reward") is not None]  # until one has ended
    steps = [row["env_steps"] for row in rows]
    rewards = [row["episode/reward"] for row in rows]
    return np.interp(asked.marks, steps, rewards).tolist()


def stable_baselines3(algorithm: str, seed: int) -> Curve:
    """The same of SB3."""
    import torch
    from stable_baselines3.common.callbacks import BaseCallback

    torch.set_num_threads(1)  # two threads on such small layers wait for each other
    asked = COMPARISONS[algorithm]
    steps: list[int] = []
    rewards: list[float] = []

    class Note(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            if self.model.ep_info_buffer:
                steps.append(self.num_timesteps)
                rewards.append(float(np.mean([one["r"] for one in self.model.ep_info_buffer])))

    _peer(algorithm, asked.cars, seed).learn(asked.env_steps, callback=Note())
    return np.interp(asked.marks, steps, rewards).tolist()


def _peer(algorithm: str, cars: int, seed: int) -> Any:
    from stable_baselines3 import PPO, SAC, TD3
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.vec_env import VecNormalize

    import rlcar.sim  # noqa: F401  registers the environment

    envs = make_vec_env("rlcar/Race-v0", n_envs=cars, seed=seed)
    options: dict[str, Any] = {"seed": seed, "device": "cpu"}
    if algorithm == "ppo":
        return PPO("MlpPolicy", VecNormalize(envs), n_steps=128, **options)
    # One update for each env step, as ours; two layers of 256, as SAC has by default.
    options |= {"learning_starts": FIRST_ENV_STEPS, "train_freq": BLOCK_LENGTH}
    options |= {"gradient_steps": -1}
    options |= {"policy_kwargs": {"net_arch": [256, 256]}, "batch_size": 256}
    if algorithm == "sac":
        return SAC("MlpPolicy", envs, **options)
    actions = envs.action_space.shape
    noise = NormalActionNoise(np.zeros(actions), np.full(actions, 0.1))
    return TD3("MlpPolicy", envs, action_noise=noise, **options)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval over seeds."""
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return mean, mean - half, mean + half


def compare(algorithm: str, seeds: int) -> None:
    """Prints the curves of one algorithm and its figures."""
    curves: dict[str, list[Curve]] = {}
    seconds: dict[str, float] = {}
    for name, learn in (("rlcar", ours), ("stable_baselines3", stable_baselines3)):
        started = time.perf_counter()
        curves[name] = [learn(algorithm, seed) for seed in range(seeds)]
        seconds[name] = (time.perf_counter() - started) / seeds
    overlaps = 0
    marks = COMPARISONS[algorithm].marks
    for index, mark in enumerate(marks):
        cells = {
            name: interval(np.array([curve[index] for curve in of_seeds]))
            for name, of_seeds in curves.items()
        }
        (mean, low, high), (peer, peer_low, peer_high) = cells.values()
        overlaps += low <= peer_high and peer_low <= high
        print(
            f"{algorithm} {mark:7,} env steps: ours {mean:6.1f} [{low:6.1f}, {high:6.1f}], "
            f"SB3 {peer:6.1f} [{peer_low:6.1f}, {peer_high:6.1f}]"
        )
    print(json.dumps(curves))
    print(f"figure {algorithm}_intervals_overlap_share={overlaps / len(marks):.3g}")
    ratio = seconds["stable_baselines3"] / seconds["rlcar"]
    print(f"figure {algorithm}_seconds_of_sb3_over_ours={ratio:.3g}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--algorithms", nargs="+", choices=COMPARISONS, default=[*COMPARISONS])
    options = parser.parse_args()
    print_header("jax", "stable-baselines3", "torch")
    for algorithm in options.algorithms:
        compare(algorithm, options.seeds)


if __name__ == "__main__":
    main()
