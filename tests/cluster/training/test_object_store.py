"""An object store that others have filled, with no disk to spill to."""

import threading
import time

import numpy as np
import pytest
import ray
from ray.exceptions import OutOfDiskError

from cluster.config import ClusterConfig
from cluster.training.loop import train
from rlcar.config import make_config
from rlcar.runs.metrics_file import read_metrics
from rlcar.storage import checkpoint

STORE_BYTES = 80_000_000


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.slow
def test_training_loses_nothing_while_others_fill_the_object_store(start_cluster, tmp_path):
    a_full_disk = {"local_fs_capacity_threshold": 1e-4}
    start_cluster(num_cpus=3, object_store_memory=STORE_BYTES, _system_config=a_full_disk)
    folder, held, refused = tmp_path / "run", [], []

    def fill():
        while not checkpoint.latest(folder / "checkpoints"):
            time.sleep(0.1)
        for size in (10_000_000, 1_000_000, 150_000):
            try:
                while True:
                    held.append(ray.put(np.ones(size, np.uint8)))
            except OutOfDiskError as error:
                refused.append(error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    # With 192 cars a block has 0.26 MB: what has less than 0.1 travels outside the store.
    settings = ["training.env_steps=120000", "training.cars=192", "training.checkpoint_every_s=1"]
    settings += ["replay.samples_per_insert=1", "training.evaluate_every_env_steps=100000"]
    config = make_config(mode="test", overrides=settings)
    outcome = train(config, ClusterConfig(simulators=1), folder)
    thread.join()
    assert len(refused) == 3
    assert len(held) * 10_000_000 > STORE_BYTES / 2
    assert outcome.summary["env_steps"] >= 120_000
    last = list(read_metrics(folder / "metrics.jsonl"))[-1]
    assert last["cluster/blocks_lost"] == last["cluster/simulator_restarts"] == 0
    assert last["cluster/learner_restarts"] == 0
    assert checkpoint.latest_sound(folder / "checkpoints") == checkpoint.latest(
        folder / "checkpoints"
    )
