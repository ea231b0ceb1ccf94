"""Our side of benchmarks/offline_speed.py: CQL, as `rlcar train --data` runs it.

    python offline_learner.py DATA UNITS ACTION_SAMPLES SEED

It understands the same lines as benchmarks/peers/offline_cql.py.
"""

import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.datasets import Dataset
from rlcar.evaluation.environment import spec_of
from rlcar.offline.data_settings import settings_of_data
from rlcar.training.recorded import open_recorded
from rlcar.training.trainer import Trainer


def make_trainer(folder: Path, units: int, samples: int, seed: int) -> Trainer:
    """Returns a trainer whose replay buffer holds the whole data set."""
    world, of_data = settings_of_data(folder, None, None)
    # d3rlpy does not halve the squared error, so that its weight of 5 is one of 2.5 here.
    own = ["cql.conservative_scale=2.5"]
    own += [f"cql.hidden_units={units}", f"cql.action_samples={samples}"]
    config = make_config(overrides=[*of_data, *own], world=world, algorithm="cql", seed=seed)
    spec = spec_of(config)
    trainer = Trainer(config, spec, make_agent(config, spec))
    rollout = open_recorded(config, trainer, None)
    weights = trainer.weights()
    transitions = Dataset.open(folder).transitions
    while trainer.env_steps < transitions:
        trainer.insert(rollout.collect(weights)[0])
    return trainer


def save(path: str, trainer: Trainer) -> None:
    """Writes the actor: the layers `w0 b0 w1 b1 w2 b2` and the moments of its observations."""
    params = trainer.weights().params
    moments = params["moments"]
    arrays = {"mean": moments.mean, "deviation": np.sqrt(moments.variance)}
    for index, layer in enumerate(params["actor"].values()):
        arrays |= {f"w{index}": layer["w"], f"b{index}": layer["b"]}
    np.savez(path, **arrays)


def main() -> None:
    folder, units, samples, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
    trainer = make_trainer(folder, units, samples, seed)
    print(f"= {version('rlcar')} {jax.__version__}", flush=True)
    for line in sys.stdin:
        verb, argument = line.split(maxsplit=1)
        if verb == "save":
            save(argument.strip(), trainer)
            print("= saved", flush=True)
            continue
        start_s, end = time.process_time(), trainer.train_steps + int(argument)
        while trainer.train_steps < end:
            trainer.train()
        print(f"= {time.process_time() - start_s}", flush=True)


if __name__ == "__main__":
    main()
