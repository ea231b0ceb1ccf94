"""How fast does PPO learn on Ray beside RLlib's, with the same cars, blocks and epochs?

    python benchmarks/rllib_loop.py [--env-steps 20480]     # needs the extra rllib

Both drive 16 cars in one process of their own, learn from blocks of 128 steps in ten epochs of
minibatches of 64 with two layers of 64. The clock starts when everything is compiled and the blocks
that had to wait for it are learned from; ours goes on for 20 times as many env steps, so that it
runs for seconds. RLlib gets the vector environment, its fastest way. In turn, on all
cores of this process.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import ray  # noqa: E402
from header import print_header  # noqa: E402

CARS, BLOCK = 16, 128


def ours(env_steps: int) -> float:
    """Env steps a second of `cluster.training.loop` with one simulator."""
    from cluster.config import ClusterConfig
    from cluster.training.loop import train
    from rlcar.config import make_config
    from rlcar.runs.metrics_file import read_metrics

    overrides = [f"training.env_steps={env_steps}", "training.log_every_s=0.05"]
    overrides += [f"training.evaluate_every_env_steps={100 * env_steps}"]
    overrides += [f"training.cars={CARS}", f"training.block_length={BLOCK}"]
    with tempfile.TemporaryDirectory() as name:
        train(make_config("ppo", overrides=overrides), ClusterConfig(simulators=1), Path(name))
        rows = [
            row
            for row in read_metrics(Path(name) / "metrics.jsonl")
            if row["env_steps"] >= 16 * CARS * BLOCK and "learner/train_steps" in row
        ]
    seconds = rows[-1]["run/train_seconds"] - rows[0]["run/train_seconds"]
    return (rows[-1]["env_steps"] - rows[0]["env_steps"]) / seconds


def make_cars(settings: dict[str, Any]) -> Any:
    """The vector environment, in RLlib's own processes."""
    from rlcar.sim.vector_env import RaceVectorEnv

    return RaceVectorEnv(num_envs=settings["num_envs"])


def rllib(env_steps: int) -> float:
    """The same of RLlib's PPO with one environment runner."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune.registry import register_env

    os.environ["PYTHONWARNINGS"] = "ignore"
    warnings.simplefilter("ignore")
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    register_env("rlcar-cars", make_cars)
    config = (
        PPOConfig()
        .environment("rlcar-cars", env_config={"num_envs": CARS})
        .env_runners(
            num_env_runners=1,
            num_envs_per_env_runner=CARS,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=BLOCK,
        )
        .training(
            train_batch_size_per_learner=CARS * BLOCK, minibatch_size=64, num_epochs=10, lr=3e-4
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "vf_share_layers": False})
    )
    algorithm = config.build_algo()

    def train_until(steps: int) -> int:
        seen = 0
        while seen < steps:
            runners = algorithm.train()["env_runners"]
            seen = int(runners["num_env_steps_sampled_lifetime"])
        return seen

    first = train_until(2 * CARS * BLOCK)
    began_s = time.perf_counter()
    last = train_until(env_steps)
    seconds = time.perf_counter() - began_s
    algorithm.stop()
    ray.shutdown()
    return (last - first) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-steps", type=int, default=20_480)
    options = parser.parse_args()
    print_header("jax", "ray", "torch")
    rates = {"rlcar": ours(20 * options.env_steps), "rllib": rllib(options.env_steps)}
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(f"figure ppo_on_ray_env_steps_per_s={rates['rlcar']:.4g}")
    print(f"figure rllib_ppo_env_steps_per_s={rates['rllib']:.4g}")
    print(f"figure ppo_on_ray_over_rllib={rates['rlcar'] / rates['rllib']:.3g}")


if __name__ == "__main__":
    main()
