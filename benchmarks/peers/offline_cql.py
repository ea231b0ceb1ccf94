"""Conservative Q-learning of d3rlpy on one of our data sets, for benchmarks/offline_speed.py.

    python offline_cql.py DATA UNITS ACTION_SAMPLES SEED

Runs in an environment of its own and imports nothing of ours. It answers each line of stdin with
one line: `learn N` makes N updates and prints their CPU-seconds, `save FILE` writes the actor.
"""

import sys
import time
from pathlib import Path

import d3rlpy
import numpy as np
import pyarrow.parquet as parquet
import torch
from d3rlpy.models.encoders import VectorEncoderFactory

BATCH_SIZE = 256
LEARNING_RATE = 1e-3  # this and the following as in our settings
REWARD_SCALE, DISCOUNT, SLOW_RATE, CONSERVATIVE_SCALE = 0.1, 0.99, 0.02, 5.0


def read(folder: Path) -> tuple[d3rlpy.dataset.MDPDataset, np.ndarray, np.ndarray]:
    """Reads a data set; returns it with normalised observations, their mean and deviation."""
    names = ["obs", "actions", "rewards", "terminateds", "truncateds"]
    table = parquet.read_table(sorted(folder.glob("*.parquet")), columns=names).combine_chunks()
    rows = len(table)
    columns = {name: table[name].combine_chunks() for name in names}
    observation, action = (
        columns[name].flatten().to_numpy(zero_copy_only=False).reshape(rows, -1)
        for name in ("obs", "actions")
    )
    ends = {name: columns[name].to_numpy(zero_copy_only=False) for name in names[2:]}
    mean, deviation = observation.mean(axis=0), observation.std(axis=0)
    dataset = d3rlpy.dataset.MDPDataset(
        ((observation - mean) / deviation).astype(np.float32),
        action.astype(np.float32),
        REWARD_SCALE * ends["rewards"].astype(np.float32),
        ends["terminateds"].astype(np.float32),
        (ends["truncateds"] & ~ends["terminateds"]).astype(np.float32),
        action_space=d3rlpy.ActionSpace.CONTINUOUS,
    )
    return dataset, mean, deviation


def make_algorithm(units: int, samples: int) -> d3rlpy.algos.CQL:
    """Returns an untrained learner with a fixed weight of the conservative loss."""
    encoder = VectorEncoderFactory([units, units])
    return d3rlpy.algos.CQLConfig(
        actor_learning_rate=LEARNING_RATE,
        critic_learning_rate=LEARNING_RATE,
        temp_learning_rate=LEARNING_RATE,
        alpha_learning_rate=0.0,
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        batch_size=BATCH_SIZE,
        gamma=DISCOUNT,
        tau=SLOW_RATE,
        n_critics=2,
        conservative_weight=CONSERVATIVE_SCALE,
        n_action_samples=samples,
    ).create(device="cpu:0")


def save(path: str, algorithm: d3rlpy.algos.CQL, mean: np.ndarray, deviation: np.ndarray) -> None:
    """Writes the actor: the layers `w0 b0 w1 b1 w2 b2` and the moments of its observations."""
    named = algorithm.impl.policy.state_dict()
    layers = [name.removesuffix(".weight") for name in named if name.endswith(".weight")]
    layers = [name for name in layers if "logstd" not in name]
    assert len(layers) == 3, layers
    assert layers[-1].endswith("_mu"), layers
    arrays = {"mean": mean, "deviation": deviation}
    for index, name in enumerate(layers):
        arrays[f"w{index}"] = named[f"{name}.weight"].numpy().T
        arrays[f"b{index}"] = named[f"{name}.bias"].numpy()
    np.savez(path, **arrays)


def main() -> None:
    folder, units, samples, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
    torch.set_num_threads(1)
    d3rlpy.seed(seed)
    dataset, mean, deviation = read(folder)
    algorithm = make_algorithm(units, samples)
    algorithm.build_with_dataset(dataset)
    print(f"= {d3rlpy.__version__} {torch.__version__}", flush=True)
    for line in sys.stdin:
        verb, argument = line.split(maxsplit=1)
        if verb == "save":
            save(argument.strip(), algorithm, mean, deviation)
            print("= saved", flush=True)
            continue
        start_s = time.process_time()
        for _ in range(int(argument)):
            algorithm.update(dataset.sample_transition_batch(BATCH_SIZE))
        print(f"= {time.process_time() - start_s}", flush=True)


if __name__ == "__main__":
    main()
