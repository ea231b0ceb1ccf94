"""The loop in one process, whole: what it leaves behind, and that stopping it costs nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from unittest import mock

import jax
import numpy as np
import pytest

from rlcar.replay import Replay
from rlcar.runs.metrics_file import read_metrics
from rlcar.runs.run import Run
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.storage.arrays import read_arrays
from rlcar.system import process_state
from rlcar.training import loop as train_module
from rlcar.training.loop import train
from rlcar.training.trainer import load_replay
from tests.support.tiny_run import compiled_once, make_tiny_config, trained
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def _compiled_once():
    with compiled_once():
        yield


def arrays_of(save, file):
    return read_arrays(save.path / f"{file}.safetensors")


def replay_of(save, file="replay"):
    config = make_tiny_config()
    replay = Replay(config.replay, SPEC, config.training.block_length, seed=1)
    replay.restore(*load_replay(save))
    return replay.state()


def copy_until(folder, env_steps):
    """A copy of the trained run as it was at that checkpoint."""
    shutil.copytree(trained()[0], folder)
    for save in checkpoint.saves(folder / "checkpoints"):
        if save.env_steps > env_steps:
            shutil.rmtree(save.path)
    return checkpoint.latest(folder / "checkpoints")


def test_a_training_leaves_all_that_its_folder_promises():
    folder, outcome = trained()
    names = {path.name for path in folder.iterdir()}
    expected = {"config.json", "run.json", "metrics.jsonl", "tensorboard", "checkpoints", "best"}
    assert names >= expected
    assert not outcome.interrupted
    assert outcome.summary["env_steps"] == 768
    assert [s.env_steps for s in checkpoint.saves(folder / "checkpoints")] == list(
        range(128, 769, 128)
    )
    assert [s.env_steps for s in checkpoint.saves(folder / "best")] == [512]
    assert list((folder / "tensorboard").iterdir())
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["env_steps"] for row in rows if "evaluation/lap_rate" in row] == [512]
    last = rows[-1]
    assert (last["env_steps"], last["learner/train_steps"]) == (768, 64)
    assert np.isfinite([last["model/loss"], last["critic/loss"], last["run/train_seconds"]]).all()


@pytest.mark.parametrize("settings", [(), ("replay.on_device=true",)])
def test_a_training_that_was_stopped_and_resumed_equals_the_uninterrupted_one_bit_for_bit(
    settings, tmp_path
):
    """Wherever the replay lies from then on."""
    save = copy_until(tmp_path / "run", 512)
    train(make_tiny_config(*settings), tmp_path / "run", save)
    expected = checkpoint.latest(trained()[0] / "checkpoints")
    resumed = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert resumed.env_steps == expected.env_steps == 768
    for file, read in (("state", arrays_of), ("rollout", arrays_of), ("replay", replay_of)):
        ours, theirs = read(resumed, file), read(expected, file)
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            np.testing.assert_array_equal(ours[name], array, err_msg=f"{file}: {name}")
    assert resumed.meta["train_steps"] == expected.meta["train_steps"] == 64
    assert resumed.meta["train_seconds"] > save.meta["train_seconds"]


def test_a_watcher_hears_each_evaluation_when_its_checkpoint_is_complete(tmp_path):
    heard = []

    def watcher(figures):
        heard.append((figures, checkpoint.latest(tmp_path / "checkpoints").env_steps))
        if figures["env_steps"] == 512:
            raise SystemExit  # as a scheduler ends a trial

    config = make_tiny_config(
        "training.evaluate_every_env_steps=256", "training.checkpoint_every_s=1e9"
    )
    with pytest.raises(SystemExit):
        train(config, tmp_path, on_evaluated=watcher)
    assert process_state.read(tmp_path)["state"] == "ended"
    assert [saved for _, saved in heard] == [256, 512]
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "evaluation/lap_rate" in row]
    names = ("env_steps", "evaluation/lap_rate", "evaluation/charged_lap_steps")
    for (figures, _), row in zip(heard, rows, strict=True):
        assert {name: figures[name] for name in names} == {name: row[name] for name in names}
    assert heard[1][0]["rollout/env_steps_per_s"] > 0
    resumed = train(config, tmp_path, checkpoint.latest(tmp_path / "checkpoints"))
    assert resumed.summary["env_steps"] == 768


def test_a_checkpoint_without_cars_goes_on_with_cars_at_new_starts(tmp_path):
    save = copy_until(tmp_path / "run", 512)
    meta = json.loads((save.path / "meta.json").read_text())
    kept = {name: meta[name] for name in ("train_seconds", "train_steps", "seed", "metric")}
    whole = checkpoint.save(
        save.path.parent,
        512,
        _tree(arrays_of(save, "state")),
        config_json=(save.path / "config.json").read_text(),
        meta=kept,
        extra_files={"replay": replay_of(save)},
    )
    assert not (whole.path / "rollout.safetensors").exists()
    outcome = train(make_tiny_config("training.env_steps=640"), tmp_path / "run", whole)
    assert outcome.summary["env_steps"] == 640
    new = checkpoint.latest(tmp_path / "run" / "checkpoints")
    replay = replay_of(new)
    block, first = replay["observation"][-4:, 0], replay["observation"][:4, 0]
    assert (block != first).any(axis=-1).all()
    assert replay["is_first"][-4:, 0].all()


def _tree(flat):
    tree = {}
    for name, array in flat.items():
        *path, leaf = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[leaf] = array
    return tree


def test_a_training_stopped_in_the_middle_of_its_train_steps_goes_on_there_bit_for_bit(
    tmp_path, monkeypatch
):
    save = copy_until(tmp_path / "run", 256)
    stop, trained_once = [], Run.trained

    def stop_at_the_second_call(run, updates, metrics):
        trained_once(run, updates, metrics)
        stop.append(True)

    monkeypatch.setattr(Run, "trained", stop_at_the_second_call)
    for _ in range(5):
        with mock.patch.object(train_module, "StopRequest", return_value=nullcontext(stop)):
            assert train(make_tiny_config(), tmp_path / "run", save).interrupted
        stop.clear()
        before, save = save, checkpoint.latest(tmp_path / "run" / "checkpoints")
        assert save.env_steps >= before.env_steps
    monkeypatch.undo()
    train(make_tiny_config(), tmp_path / "run", save)
    expected = checkpoint.latest(trained()[0] / "checkpoints")
    resumed = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert (resumed.env_steps, resumed.meta["train_steps"]) == (768, 64)
    for name, array in arrays_of(expected, "state").items():
        np.testing.assert_array_equal(arrays_of(resumed, "state")[name], array, err_msg=name)


@pytest.mark.slow
def test_sigterm_ends_a_training_with_a_checkpoint_and_auto_continues_it(tmp_path):
    # An algorithm and an environment that are quickly compiled and evaluated.
    command = [sys.executable, "-m", "rlcar.cli", "train", "--local", "--mode", "test"]
    command += ["--preset", "ppo", "--env", "CartPole-v1", "--runs", str(tmp_path)]
    command += ["--set", "training.cars=4", "--set", "training.block_length=32", "--set"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    first = subprocess.Popen(
        [*command, "training.env_steps=1000000"], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        rows = _wait_for_row(tmp_path, first)
        first.send_signal(signal.SIGTERM)
        asked_s = time.monotonic()
        _, said = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 130, said
    assert time.monotonic() - asked_s < 30
    assert "stopped; continue with: rlcar train --resume" in said
    assert "Traceback" not in said
    (folder,) = tmp_path.iterdir()
    stopped = checkpoint.latest(folder / "checkpoints")
    assert stopped.env_steps >= rows[-1]["env_steps"]

    target = stopped.env_steps + 256
    done = subprocess.run(
        [*command, f"training.env_steps={target}", "--resume", "auto"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"continuing {stopped.path.name}" in done.stderr
    report = json.loads((folder / "report.json").read_text())
    assert report["env_steps"] == target
    last = checkpoint.latest(folder / "checkpoints")
    assert last.meta["train_steps"] > stopped.meta["train_steps"]
    assert last.meta["train_seconds"] > stopped.meta["train_seconds"]


@pytest.mark.slow
def test_sigterm_during_the_compilation_saves_at_once_and_the_process_ends_with_it(tmp_path):
    command = [sys.executable, "-m", "rlcar.cli", "train", "--local", "--preset", "nano"]
    command += ["--runs", str(tmp_path / "runs"), "--name", "run"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path)}
    folder = tmp_path / "runs" / "run"
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process_state.read(folder).get("stage") == "compiling", 200)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: process_state.read(folder)["state"] == "ended", 20)
        save = checkpoint.latest(folder / "checkpoints")
        was_still_compiling = process.poll() is None
        _, said = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert was_still_compiling
    assert save.meta["train_steps"] == 0
    assert save.env_steps >= 512  # the replay buffer, from which the training continues
    assert "stopped; continue with: rlcar train --resume" in said


def _wait_for_row(root, process):
    """Waits until the training has written a row about train steps."""
    deadline_s = time.monotonic() + 200
    while time.monotonic() < deadline_s:
        assert process.poll() is None, process.communicate()[1]
        for path in root.glob("*/metrics.jsonl"):
            rows = read_metrics(path)
            if rows:
                return rows
        time.sleep(0.2)
    raise AssertionError("no row of metrics within 200 s")


def test_looking_for_nans_does_not_trip_over_those_of_an_evaluation(tmp_path):
    config = make_tiny_config("training.env_steps=512")
    with jax.debug_nans(True):
        assert train(config, tmp_path / "run").summary["env_steps"] == 512
