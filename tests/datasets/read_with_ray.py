"""Reads a data set of the race with Ray Data, or trains on it with RLlib; imports none of our code.

`python read_with_ray.py data|rllib FOLDER`
"""

import os
import sys

import numpy as np
import ray


def read_with_ray_data(folder: str) -> int:
    """Returns the number of rows, after a look at their types and order."""
    table = ray.data.read_parquet(folder, file_extensions=["parquet"]).to_pandas()
    table = table.sort_values(["eps_id", "t"])
    observation, following = np.stack(table.obs), np.stack(table.new_obs)
    assert observation.shape == (len(table), 6)
    assert np.stack(table.actions).shape == (len(table), 2)
    is_same_episode = np.diff(table.eps_id) == 0
    assert (observation[1:] == following[:-1])[is_same_episode].all()
    return len(table)


def train_with_rllib(folder: str) -> int:
    """Clones the behaviour for an iteration; returns the number of rows."""
    import gymnasium
    from ray.rllib.algorithms.bc import BCConfig

    config = (
        BCConfig()
        .environment(
            observation_space=gymnasium.spaces.Box(0, 1, (6,), np.float32),
            action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
        )
        .env_runners(num_env_runners=0)
        .evaluation(evaluation_interval=None)
        .offline_data(
            input_=sorted(
                os.path.join(folder, name)
                for name in os.listdir(folder)
                if name.endswith(".parquet")
            ),
            dataset_num_iters_per_learner=1,
        )
        .training(train_batch_size_per_learner=32)
    )
    algorithm = config.build_algo()
    result = algorithm.train()
    loss = result["learners"]["default_policy"]["policy_loss"]
    rows = algorithm.offline_data.data.count()
    algorithm.stop()
    assert np.isfinite(loss), loss
    return rows


def main() -> None:
    """Runs the reader that the command line names."""
    reader, folder = sys.argv[1:]
    # Each worker imports Ray Data for seconds, and one reads 67 rows. RLlib needs more.
    cores = {"data": 1, "rllib": 3}[reader]
    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
    rows = {"data": read_with_ray_data, "rllib": train_with_rllib}[reader](folder)
    print(f"read {rows} transitions")  # noqa: T201  the test reads it
    ray.shutdown()


if __name__ == "__main__":
    main()
