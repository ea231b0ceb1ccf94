"""Compares two runs bit for bit: parameters, replay buffer, counters and rows of metrics."""

import numpy as np

from rlcar.config import load_config
from rlcar.evaluation.environment import spec_of
from rlcar.replay import Replay
from rlcar.runs.metrics_file import read_metrics
from rlcar.storage import checkpoint
from rlcar.storage.arrays import read_arrays
from rlcar.training.trainer import load_replay

# Parts of the names of metrics that are measured with a clock and differ between any two runs.
CLOCKED = ("_per_s", "/idle_share", "/simulators_busy_share", "run/train_seconds", "mirror/")


def learned(folder):
    """Returns all arrays in the newest checkpoint of a run by name."""
    save = checkpoint.latest(folder / "checkpoints")
    arrays = {"env_steps": np.asarray(save.env_steps)}
    files = [path for path in save.path.glob("*.safetensors") if "replay" not in path.name]
    assert files
    for path in files:
        arrays |= {f"{path.name}:{name}": array for name, array in read_arrays(path).items()}
    # A checkpoint may hold the replay buffer in two parts, whose sizes depend on the clock.
    config = load_config(checkpoint.config_path(save))
    whole, since = load_replay(save)
    capacity = int(whole["position"][0]) * config.training.block_length
    settings = config.replay.model_copy(update={"capacity_env_steps": capacity})
    replay = Replay(settings, spec_of(config), config.training.block_length, seed=0)
    replay.restore(whole, since)
    return arrays | {f"replay:{name}": np.asarray(array) for name, array in replay.state().items()}


def rows(folder):
    """Returns the rows of metrics without those that are measured with a clock."""
    return [
        {
            name: value
            for name, value in row.items()
            if not any(part in name for part in CLOCKED) and name != "time_s"
        }
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def assert_equal_runs(first, second):
    mine, other = learned(first), learned(second)
    assert mine.keys() == other.keys()
    different = [name for name in mine if mine[name].tobytes() != other[name].tobytes()]
    assert not different
    assert len(rows(first)) > 1
    assert rows(first) == rows(second)
