"""The replay buffer in separate processes: equal batches, and the death of a process."""

import os
import re
import signal
import threading
import time

import numpy as np
import pytest
import ray

from cluster.config import ClusterConfig
from cluster.training.learner_handle import LearnerHandle
from cluster.training.loop import train
from cluster.training.replay_shards import ReplayShards, rings_on
from rlcar.agents import make_agent
from rlcar.config import make_config
from rlcar.errors import ConfigError, UserError
from rlcar.evaluation.environment import make_rollout
from rlcar.replay import Replay
from rlcar.runs.metrics_file import read_metrics
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.training.loop import train as train_locally
from rlcar.training.trainer import Trainer

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("embedded_ray"),
]
TWO = ClusterConfig(simulators=1, replay_shards=2)


def tiny(*overrides):
    shared = ("training.env_steps=2048", "training.evaluate_every_env_steps=1024")
    settings = [*shared, "training.log_every_s=0.01", *overrides]
    # With a replay buffer, and quicker to compile than a world model.
    return make_config(mode="test", algorithm="sac", overrides=settings)


def test_shards_elsewhere_give_the_batches_of_a_replay_here():
    config = tiny()
    shards = ReplayShards(config, TWO)
    try:
        slots = rings_on(shards.actors, config, deadline_s=60.0)
        replays = [
            Replay(config.replay, SPEC, config.training.block_length, 0, where)
            for where in (slots, None)
        ]
        agent = make_agent(config, SPEC)
        weights = Trainer(config, SPEC, agent).weights()
        rollout = make_rollout(config, agent.policy, 0, 0)
        for _ in range(3):
            trajectory, _ = rollout.collect(weights)
            for replay in replays:
                replay.insert(trajectory)
            for one, other in zip(*(replay.sample(2) for replay in replays), strict=True):
                np.testing.assert_array_equal(one, other)
        assert replays[0].check_valid() == (True, "")
    finally:
        shards.stop()


@pytest.mark.long
@pytest.mark.slow
def test_a_shard_that_dies_costs_what_came_after_the_checkpoint_and_no_more(tmp_path, monkeypatch):
    folder, learners = tmp_path / "run", []
    start = LearnerHandle.__init__

    def record(learner, *arguments):
        start(learner, *arguments)
        learners.append(learner)

    monkeypatch.setattr(LearnerHandle, "__init__", record)

    def kill_one():
        while not checkpoint.latest(folder / "checkpoints"):
            time.sleep(0.05)
        where = ray.get(learners[0]._shards.actors[1].location.remote(), timeout=60)
        os.kill(where.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    config = tiny("training.env_steps=8192", "training.checkpoint_every_s=0.5")
    outcome = train(config, TWO, folder)
    thread.join()
    assert len(learners) == 2
    rows = list(read_metrics(folder / "metrics.jsonl"))
    restarts = [
        row["cluster/learner_restarts"] for row in rows if "cluster/learner_restarts" in row
    ]
    assert restarts[-1] == 1
    assert outcome.summary["env_steps"] >= 8192
    # A save does not know of shards: one process continues it.
    save = checkpoint.latest(folder / "checkpoints")
    longer = tiny("training.env_steps=9216")
    assert train_locally(longer, folder, save).summary["env_steps"] >= 9216


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("algorithm=ppo", "ppo has no replay buffer to spread"),
        ("replay.on_device=true", "memory of the learner's device: leave one of the two out"),
    ],
)
def test_what_lies_elsewhere_or_nowhere_cannot_be_spread(setting, reason, tmp_path):
    with pytest.raises(UserError, match=reason) as refusal:
        train(make_config(mode="test", overrides=[setting]), TWO, tmp_path / "run")
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "run").glob("c*"))  # neither config.json nor checkpoints


def test_shards_that_no_node_can_hold_are_refused_with_what_fits(tmp_path):
    def huge(capacity):
        return tiny(f"replay.capacity_env_steps={capacity}")

    with pytest.raises(ConfigError, match="in 2 shards of .* Ray's nodes have") as refusal:
        train(huge(10**12), TWO, tmp_path / "run")
    assert not list((tmp_path / "run").glob("c*"))  # neither config.json nor checkpoints
    most = int(re.search(r"replay\.capacity_env_steps to (\d+) at most", str(refusal.value))[1])
    shards = ReplayShards(huge(most), TWO)
    shards.stop()
    assert len(shards.actors) == 2
    with pytest.raises(ConfigError, match=f"capacity_env_steps to {most} at most"):
        ReplayShards(huge(most + 2 * 32), TWO)
