"""`rlcar chaos`: which processes are killed and when, and whole campaigns of kills."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import ray

from cluster.chaos.kills import (
    KillCampaign,
    KillPlan,
    due_env_steps,
    only_training_job,
    send_signal,
)
from cluster.chaos.run import against_running_training
from cluster.chaos.watch import RunWatch
from cluster.config import ClusterConfig
from rlcar.errors import UserError
from rlcar.runs.metrics_file import read_metrics


def test_only_workers_of_ray_are_signalled():
    with subprocess.Popen(["sleep", "60"]) as bystander:
        assert not send_signal(bystander.pid, signal.SIGKILL)
        assert bystander.poll() is None
        bystander.kill()
    assert not send_signal(bystander.pid, signal.SIGKILL)  # no process has this id


def test_kills_are_spread_over_the_whole_training_in_an_order_that_the_seed_gives():
    plan = KillPlan(kills=50, minutes=None, kinds=["learner"], until_env_steps=10_000)
    due = due_env_steps(plan, random.Random(1))
    assert due == sorted(due)
    assert due == due_env_steps(plan, random.Random(1)) != due_env_steps(plan, random.Random(2))
    assert 0 <= due[0] < 200
    assert 9_400 < due[-1] < 10_000
    assert due_env_steps(plan._replace(until_env_steps=None), random.Random(1)) == []


def test_a_kill_that_does_not_exist_is_refused_by_name(tmp_path):
    plan = KillPlan(kills=1, minutes=None, kinds=["learner", "sheep"])
    with pytest.raises(UserError, match="sheep; the kinds are simulator, hang, learner, driver"):
        KillCampaign(plan, RunWatch(tmp_path, 1.0), None, None, lambda text: None)
    plan = plan._replace(kinds=["driver"])
    with pytest.raises(UserError, match="started elsewhere cannot be killed"):
        KillCampaign(plan, RunWatch(tmp_path, 1.0), None, None, lambda text: None)


def start(arguments, environment, folder):
    command = [sys.executable, "-m", "rlcar.cli", *arguments]
    output = folder / f"output-{arguments[0]}-{len(list(folder.iterdir()))}"
    with output.open("w") as file:
        process = subprocess.Popen(
            command, env=os.environ | environment, cwd=folder, stdout=file, stderr=file
        )
    return process, output


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_a_training_survives_a_campaign_against_each_of_its_parts(ray_environment, tmp_path):
    words = "chaos --kills 3 --kinds simulator,learner,driver --seed 1 --mode test --simulators 1"
    arguments = [*words.split(), "--name", "run", "--window-s", "1.5"]
    process, output = start(arguments, ray_environment, tmp_path)
    try:
        assert process.wait(timeout=240) == 0, output.read_text()
    finally:
        process.kill()
    folder = tmp_path / "runs" / "run"
    report = json.loads((folder / "chaos.json").read_text())
    assert (report["kills"], report["completed"], report["checkpoints_lost"]) == (3, True, 0)
    assert sorted(report["by_kind"]) == ["driver", "learner", "simulator"]
    assert all(kill["recovery_s"] is not None for kill in report["each"])
    assert not any(os.path.exists(f"/proc/{kill['pid']}") for kill in report["each"])
    rows = read_metrics(folder / "metrics.jsonl")
    assert (
        rows[-1]["env_steps"] == report["env_steps"] > max(k["env_steps"] for k in report["each"])
    )
    assert "3 kills in" in output.read_text()
    assert "figure checkpoints_lost=0" in output.read_text()


@pytest.mark.ray
def test_a_run_is_only_attacked_in_a_cluster_that_is_named(ray_environment, tmp_path):
    process, output = start(["chaos", "--run", "runs/x"], ray_environment, tmp_path)
    assert process.wait(timeout=60) == 2
    assert "name that one with --address" in output.read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_somebody_elses_training_loses_a_simulator_and_keeps_its_driver(embedded_ray, tmp_path):
    address = ray.get_runtime_context().gcs_address
    words = f"train --mode test --algorithm sac --simulators 1 --name run --address {address}"
    endless = ["training.env_steps=100000000", "training.evaluate_every_env_steps=100000000"]
    settings = [word for one in [*endless, "training.log_every_s=0.1"] for word in ("--set", one)]
    training, output = start([*words.split(), *settings], {}, tmp_path)
    folder = tmp_path / "runs" / "run"
    try:
        while not (folder / "metrics.jsonl").exists():
            assert training.poll() is None, output.read_text()
            time.sleep(0.2)
        heard = []
        report = against_running_training(
            KillPlan(kills=1, minutes=None, kinds=["driver", "simulator"]),
            ClusterConfig(address=address),
            folder,
            None,
            window_s=1.5,
            say=heard.append,
        )
        # On a slow machine the rate is back before a row of the driver's counts the restart.
        deadline_s = time.monotonic() + 60
        while read_metrics(folder / "metrics.jsonl")[-1]["cluster/simulator_restarts"] < 1:
            assert training.poll() is None, output.read_text()
            assert time.monotonic() < deadline_s, "the killed simulator was never counted"
            time.sleep(0.2)
        assert training.poll() is None
    finally:
        training.terminate()
        try:
            training.wait(timeout=60)
        finally:
            training.kill()  # else it would keep the cores of the tests that come next
            training.wait()
    assert (report["completed"], report["checkpoints_lost"]) == (True, 0), report
    assert list(report["by_kind"]) == ["simulator"]
    assert heard[0].startswith("kill 1/1: simulator ")
    assert read_metrics(folder / "metrics.jsonl")[-1]["cluster/simulator_restarts"] == 1


@pytest.mark.ray
def test_a_cluster_without_a_training_is_left_alone(embedded_ray):
    with pytest.raises(UserError, match="no training is running in this cluster"):
        only_training_job()
