"""`rlcar train` as a user runs it, in a process of its own: addresses, signals, sudden death."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from rlcar.runs.metrics_file import read_metrics
from rlcar.storage import checkpoint
from rlcar.system.process_usage import process_files
from rlcar.training.trainer import load_replay

pytestmark = pytest.mark.ray

# With a replay buffer, and quicker to compile than a world model.
ENDLESS = [
    *("--mode", "test", "--algorithm", "sac", "--simulators", "1", "--name", "run"),
    *("--set", "training.env_steps=10000000", "--set", "training.checkpoint_every_s=0.5"),
    *("--set", "training.evaluate_every_env_steps=10000000"),
]
START_S = 180.0
# Ray's own agents, which sit idle; they outlive a killed driver by about a minute.
AGENTS = {"ray::DashboardA", "ray::RuntimeEnv"}


def wait_for(question, limit_s):
    end_s = time.monotonic() + limit_s
    while not (answer := question()):
        assert time.monotonic() < end_s, f"not within {limit_s} s"
        time.sleep(0.1)
    return answer


def processes_of(session):
    """Names of the living processes in a session (in the kernel's sense), agents left out."""
    names = []
    for stat in process_files("stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
            state, _, _, of = rest.split()[:4]
            if int(of) == session and state != "Z" and name not in AGENTS:
                names.append(name)
    return names


def learned_save(folder, since=0):
    """The newest save later than `since` from which something has been learned."""
    with contextlib.suppress(FileNotFoundError):  # old ones are deleted while we look
        save = checkpoint.latest(folder)
        if save and save.env_steps > since and save.meta.get("train_steps"):
            return save
    return None


def slots_replayed(save):
    """How much the replay of a checkpoint holds."""
    whole, since = load_replay(save)
    return int((since or whole)["position"][1])


def test_an_address_where_nobody_listens_is_one_sentence_and_exit_code_2(start_rlcar):
    start_s = time.monotonic()
    process, output = start_rlcar("train", "--mode", "test", "--address", "127.0.0.1:1")
    process.wait(timeout=60)
    assert process.returncode == 2
    assert time.monotonic() - start_s < 30
    lines = output.read_text().strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["run folder", "error"]
    assert "127.0.0.1:1" in lines[1]
    assert "RAY_AUTH_MODE=token" in lines[1]


@pytest.mark.parametrize(
    "command",
    [("train", *ENDLESS), ("serve", "--lane", "ray", "--wait-for-model", "--registry", "models")],
    ids=["train", "serve"],
)
def test_a_ray_that_does_not_start_is_one_sentence_and_exit_code_2(
    start_rlcar, monkeypatch, command
):
    monkeypatch.setenv("RAY_GCS_SERVER_PORT", "none")  # Ray's own variable
    process, output = start_rlcar(*command)
    assert process.wait(timeout=START_S) == 2
    said = " ".join(output.read_text().split())
    assert "error: Ray did not start on this machine: invalid literal for int()" in said
    assert "try again when there is less to do" in said
    assert "Traceback" not in said


def test_minus_one_simulators_is_refused_by_name_and_value(start_rlcar):
    process, output = start_rlcar("train", "--mode", "test", "--simulators", "-1")
    process.wait(timeout=60)
    assert process.returncode == 2
    assert "error: --simulators -1: " in output.read_text()
    assert "Traceback" not in output.read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes through /proc")
def test_a_killed_training_leaves_no_workers_and_is_resumed_and_then_stopped_with_a_save(
    start_rlcar, tmp_path
):
    folder = tmp_path / "runs" / "run"
    killed, _ = start_rlcar("train", *ENDLESS)
    wait_for(lambda: learned_save(folder / "checkpoints"), START_S)
    assert len(processes_of(killed.pid)) > 1
    killed.kill()
    killed.wait()
    wait_for(lambda: not processes_of(killed.pid), 30)

    save = checkpoint.latest(folder / "checkpoints")
    before = save.meta["train_steps"]
    replayed_before = slots_replayed(save)
    resumed, output = start_rlcar("train", *ENDLESS, "--resume", "auto")
    later = wait_for(lambda: learned_save(folder / "checkpoints", save.env_steps), START_S)
    resumed.send_signal(signal.SIGTERM)
    asked_s = time.monotonic()
    resumed.wait(timeout=60)

    assert resumed.returncode == 130, output.read_text()
    assert time.monotonic() - asked_s < 20
    assert f"continuing {save.path.name}" in output.read_text()
    assert "Traceback" not in output.read_text()
    last = checkpoint.latest(folder / "checkpoints")
    assert last.env_steps >= later.env_steps > save.env_steps
    # As many train steps for each env step as if it had never died, but for the blocks that were
    # only stored once it was asked to stop: those are owed.
    owed = (last.env_steps - save.env_steps) * 16 / 128 - (last.meta["train_steps"] - before)
    assert -8 <= owed <= 8 * 16
    assert slots_replayed(last) > replayed_before
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["env_steps"] for row in rows] == sorted(row["env_steps"] for row in rows)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_saves_and_exits_130(start_rlcar, tmp_path):
    folder = tmp_path / "runs" / "run"
    process, output = start_rlcar("train", *ENDLESS, "--set", "training.checkpoint_every_s=100000")
    seen = folder / "metrics.jsonl"
    wait_for(lambda: seen.exists() and '"learner/train_steps"' in seen.read_text(), START_S)
    assert checkpoint.latest(folder / "checkpoints") is None
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    asked_s = time.monotonic()
    process.wait(timeout=60)
    assert process.returncode == 130, output.read_text()
    assert time.monotonic() - asked_s < 20
    assert "stopped; continue with: rlcar train --resume" in output.read_text()
    assert "Traceback" not in output.read_text()
    save = checkpoint.latest(folder / "checkpoints")
    assert save.env_steps == read_metrics(seen)[-1]["env_steps"]
