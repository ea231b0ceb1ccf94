"""Whole trainings on an embedded Ray: what they leave, what they survive, how they say no."""

import contextlib
import json
import os
import shutil
import signal
import threading
import time
from unittest import mock

import pytest
import ray

from cluster.config import ClusterConfig
from cluster.training import loop as train_module
from cluster.training.fleet import Fleet
from cluster.training.learner_handle import LearnerHandle
from cluster.training.loop import train
from rlcar.config import load_config, make_config
from rlcar.errors import CheckpointError, ConfigError, NonFiniteError, UserError
from rlcar.runs.metrics_file import read_metrics
from rlcar.storage import checkpoint
from rlcar.system import process_state

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("embedded_ray"),
]

ONE = ClusterConfig(simulators=1)
BLOCK = 256  # env steps


def tiny(*overrides):
    shared = ("training.env_steps=2048", "training.evaluate_every_env_steps=1024")
    settings = [*shared, "training.log_every_s=0.01", *overrides]
    # With a replay buffer, and quicker to compile than a world model.
    return make_config(mode="test", algorithm="sac", overrides=settings)


def rows_with(folder, name):
    return [row for row in read_metrics(folder / "metrics.jsonl") if name in row]


def train_steps_due(config, env_steps):
    """The samples-per-insert law, in whole calls of eight train steps."""
    fresh = env_steps - config.replay.min_env_steps
    per_update = config.replay.batch_size * config.replay.batch_length
    return int(fresh * config.replay.samples_per_insert // per_update) // 8 * 8


@pytest.fixture(scope="module")
def done(embedded_ray, tmp_path_factory):
    """A finished training, which no test may change."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    config = tiny()
    return folder, config, train(config, ONE, folder)


def test_a_run_on_ray_leaves_what_a_local_run_leaves(done):
    folder, config, outcome = done
    assert {path.name for path in folder.iterdir()} >= {
        "config.json",
        "run.json",
        "metrics.jsonl",
        "checkpoints",
        "best",
    }
    assert load_config(folder / "config.json") == config
    assert json.loads((folder / "run.json").read_text())["seed"] == config.seed
    assert not outcome.interrupted
    assert checkpoint.latest(folder / "best") is not None


def test_a_run_on_ray_learns_as_much_for_each_env_step_as_a_local_one(done):
    folder, config, outcome = done
    save = checkpoint.latest(folder / "checkpoints")
    assert save.env_steps == outcome.summary["env_steps"] >= config.training.env_steps
    assert save.env_steps % BLOCK == 0
    # What was still in the learner's queue is learned from too, but nothing after it.
    assert save.env_steps <= config.training.env_steps + ONE.learner_queue * BLOCK
    assert save.meta["train_steps"] == train_steps_due(config, save.env_steps)
    last = rows_with(folder, "learner/train_steps")[-1]
    assert (last["env_steps"], last["learner/train_steps"]) == (
        save.env_steps,
        save.meta["train_steps"],
    )


def test_each_logged_row_says_how_old_the_weights_of_its_blocks_were(done):
    folder, config, _ = done
    lags = [
        row["rollout/weights_lag_updates"]
        for row in rows_with(folder, "rollout/weights_lag_updates")
    ]
    most_blocks = ONE.learner_queue + ONE.blocks_in_flight + 1
    one_block = BLOCK * config.replay.samples_per_insert / 128 + 8
    assert lags
    assert all(0 <= lag <= most_blocks * one_block for lag in lags)


@pytest.fixture
def started(monkeypatch):
    """Lists the actors as they are started: "simulator" and "learner" -> actors."""
    actors = {"simulator": [], "learner": []}
    start_simulator, start_learner = Fleet._start, LearnerHandle.__init__

    def record_simulator(fleet, simulator):
        start_simulator(fleet, simulator)
        actors["simulator"].append(simulator.actor)

    def record_learner(learner, *arguments):
        start_learner(learner, *arguments)
        actors["learner"].append(learner._actor)

    monkeypatch.setattr(Fleet, "_start", record_simulator)
    monkeypatch.setattr(LearnerHandle, "__init__", record_learner)
    return actors


def send(actor, number):
    """Sends a signal to an actor's process."""
    os.kill(ray.get(actor.location.remote(), timeout=60).pid, number)


def learned_save(folder, since=0):
    """The newest checkpoint later than `since` from which something has been learned."""
    end_s = time.monotonic() + 120
    while time.monotonic() < end_s:
        with contextlib.suppress(FileNotFoundError):  # old ones are deleted while we look
            save = checkpoint.latest(folder / "checkpoints")
            if save and save.env_steps > since and save.meta.get("train_steps"):
                return save
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint after {since} env steps")


def test_a_stop_before_the_first_train_step_does_not_wait_for_the_learner(tmp_path, monkeypatch):
    """The learner is suspended with its first block, as silent as while it compiles."""
    stop, asked_s = [], []
    learn = LearnerHandle.learn

    def learn_suspended(learner, block):
        if not stop:
            send(learner._actor, signal.SIGSTOP)
            stop.append(True)
            asked_s.append(time.monotonic())
        learn(learner, block)

    monkeypatch.setattr(LearnerHandle, "learn", learn_suspended)
    with mock.patch.object(train_module, "StopRequest", return_value=contextlib.nullcontext(stop)):
        outcome = train(tiny(), ONE, tmp_path / "run")
    assert time.monotonic() - asked_s[0] < ONE.learner_deadline_s / 2
    assert outcome.interrupted
    save = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert save is None or save.env_steps == 0
    assert process_state.read(tmp_path / "run")["state"] == "ended"


def test_a_stop_during_the_start_of_the_learner_does_not_wait_for_it(tmp_path):
    with mock.patch.object(
        train_module, "StopRequest", return_value=contextlib.nullcontext([True])
    ):
        outcome = train(tiny(), ONE, tmp_path / "run")
    assert outcome.interrupted
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None


@pytest.mark.slow
def test_training_goes_on_when_simulators_and_learners_are_killed_or_hang(
    tmp_path, started, caplog
):
    folder, seen = tmp_path / "run", []

    def disturb():
        seen.append(learned_save(folder).env_steps)
        send(started["simulator"][0], signal.SIGKILL)
        send(started["learner"][0], signal.SIGKILL)
        seen.append(learned_save(folder, seen[-1]).env_steps)
        send(started["learner"][1], signal.SIGSTOP)
        seen.append(learned_save(folder, seen[-1]).env_steps)
        stop.append(True)

    config = tiny("training.env_steps=1000000", "training.checkpoint_every_s=0.5")
    cluster = ClusterConfig(simulators=1, learner_deadline_s=2.0)
    stop = []
    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    with mock.patch.object(train_module, "StopRequest", return_value=contextlib.nullcontext(stop)):
        outcome = train(config, cluster, folder)
    thread.join()
    assert outcome.interrupted
    assert len(started["learner"]) == 3
    assert len(started["simulator"]) >= 2
    rows = rows_with(folder, "cluster/learner_restarts")
    assert rows[-1]["cluster/learner_restarts"] == 2
    assert rows[-1]["cluster/simulator_restarts"] >= 1
    # Nothing that a checkpoint held is lost, and no counter goes back.
    assert seen == sorted(seen)
    steps = [row["env_steps"] for row in rows]
    assert steps == sorted(steps)
    last = checkpoint.latest(folder / "checkpoints")
    assert last.env_steps >= seen[-1]
    assert last.meta["train_steps"] == pytest.approx(
        train_steps_due(config, last.env_steps), abs=96
    )
    messages = [
        record.message for record in caplog.records if record.name == "cluster.training.loop"
    ]
    assert messages[0] == "the learner is replaced: ActorDiedError"
    assert messages[1].startswith("the learner is replaced: it has answered nothing for")


def test_a_learner_that_dies_before_each_checkpoint_ends_the_training_and_says_how_often(
    tmp_path, started
):
    def kill_each():
        for number in range(2):
            while len(started["learner"]) == number:
                time.sleep(0.05)
            send(started["learner"][number], signal.SIGKILL)

    threading.Thread(target=kill_each, daemon=True).start()
    cluster = ClusterConfig(simulators=1, most_restarts_in_a_row=1)
    with pytest.raises(UserError, match="the learner died 2 times without writing") as caught:
        train(tiny("training.checkpoint_every_s=100000"), cluster, tmp_path / "run")
    assert "\n" not in str(caught.value)


@ray.remote(num_cpus=0)
def block_of_a_dead_host():
    raise ray.exceptions.ObjectLostError("00" * 28, None, "its host is gone")


@pytest.mark.slow
def test_training_goes_on_when_a_block_is_lost_on_its_way_to_the_learner(
    tmp_path, monkeypatch, caplog
):
    lost = []
    blocks = Fleet.take_blocks

    def lose_the_first(fleet, timeout_s, most):
        for block in blocks(fleet, timeout_s, most):
            if not lost:
                lost.append(block.trajectory)
                block = block._replace(trajectory=block_of_a_dead_host.remote())
            yield block

    monkeypatch.setattr(Fleet, "take_blocks", lose_the_first)
    outcome = train(tiny(), ONE, tmp_path / "run")
    assert lost
    assert outcome.summary["env_steps"] >= 2048
    assert [
        record.message
        for record in caplog.records
        if record.name == "cluster.training.learner_handle"
    ] == ["a block is lost on its way to the learner"]
    assert rows_with(tmp_path / "run", "cluster/blocks_lost")[-1]["cluster/blocks_lost"] == 1


@pytest.mark.slow
def test_a_nan_returns_to_the_checkpoint_with_a_lower_rate_and_then_stops(done, tmp_path, caplog):
    folder = shutil.copytree(done[0], tmp_path / "run")
    before = checkpoint.latest(folder / "checkpoints")
    absurd = "sac.learning_rate=1e30"
    wild = tiny(absurd, "training.env_steps=9000", "training.rollbacks=1")
    with pytest.raises(NonFiniteError, match=r"stopped after 2 returns to the last") as caught:
        train(wild, ONE, folder, before)
    assert type(caught.value) is NonFiniteError
    assert [record.message for record in caplog.records if record.name == "rlcar.training.rollback"]
    assert "\n" not in str(caught.value)
    assert checkpoint.latest(folder / "checkpoints") == before
    assert checkpoint.load_extra(before, "replay")


def test_a_checkpoint_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="^cannot save .*checkpoints") as caught:
        train(tiny("training.checkpoint_every_s=0.001"), ONE, tmp_path / "run")
    assert type(caught.value) is CheckpointError
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_refused_before_anything_is_changed(done):
    folder, _, _ = done
    save = checkpoint.latest(folder / "checkpoints")
    before = (folder / "metrics.jsonl").read_bytes()
    other = tiny("sac.hidden_units=48", "training.env_steps=9000")
    with pytest.raises(CheckpointError, match="another architecture") as caught:
        train(other, ONE, folder, save)
    assert type(caught.value) is CheckpointError
    assert "\n" not in str(caught.value)
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("where", ["replay.on_device=true", "training.env_steps=1000000000000"])
def test_a_learner_that_cannot_hold_its_replay_says_so_the_first_time(where, tmp_path, caplog):
    huge = tiny(where, "replay.capacity_env_steps=1000000000000")
    with pytest.raises(ConfigError, match=r"replay\.capacity_env_steps") as caught:
        train(huge, ONE, tmp_path / "run")
    assert type(caught.value) is ConfigError
    assert "\n" not in str(caught.value)
    ours = [record for record in caplog.records if record.name.startswith("cluster")]
    assert not [record for record in ours if "learner" in record.message]
    assert not list((tmp_path / "run").glob("c*"))  # neither config.json nor checkpoints


def test_a_training_leaves_no_actor_in_a_cluster_that_it_only_joined(done):
    end_s = time.monotonic() + 60
    free = 0.0
    while free < 3.0 and time.monotonic() < end_s:
        free = ray.available_resources().get("CPU", 0.0)
        time.sleep(0.2)
    assert free == 3.0
