"""Disaster recovery: everything is deleted, restored, trained on and served with the same bits."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlcar.registry import Registry
from rlcar.storage import checkpoint
from serve.policy.policy import load_policy
from tests.storage.backup.conftest import contents
from tests.support.tiny_run import compiled_once
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
OBSERVATIONS = np.random.default_rng(7).random((64, 6), dtype=np.float32)
TRAIN = ["--mode", "test", "--local", "--algorithm", "documented", "--name", "first"]


def run_rlcar(folder, *words, code=0):
    command = [sys.executable, "-m", "rlcar.cli", *map(str, words)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == code, (words, done.stderr[-3000:])
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def actions(folder) -> bytes:
    """The actions of the served model for fixed observations."""
    policy = load_policy(Registry(folder / "models"), "champion")
    state, is_first, parts = policy.initial_state(64), np.ones(64, bool), []
    for _ in range(3):
        action, state = policy.act(state, OBSERVATIONS, is_first)
        parts.append(np.asarray(action).tobytes())
        is_first = np.zeros(64, bool)
    return b"".join(parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["folder", pytest.param("bucket", marks=pytest.mark.long)], indirect=True
)
def test_a_lost_installation_trains_and_serves_on_as_if_nothing_had_happened(
    target, tmp_path, monkeypatch, rlcar
):
    def run_rlcar(folder, *words):
        monkeypatch.chdir(folder)
        with compiled_once():
            code, stdout, stderr = rlcar(*words)
        assert code == 0, (words, stderr[-3000:])
        return stdout + stderr

    folder = tmp_path / "site"
    folder.mkdir()
    run_rlcar(folder, "train", *TRAIN, "--set", "training.env_steps=512")
    run_rlcar(folder, "models", "publish", "runs/first", "--alias", "champion")
    (folder / "data").mkdir()
    (folder / "data" / "laps.parquet").write_bytes(b"laps")
    run_rlcar(folder, "backup", target, "--verify", "--metrics-file", "backup.prom")
    before = {part: contents(folder / part) for part in ("runs", "models", "data")}
    acted = actions(folder)
    stopped_at = checkpoint.latest(folder / "runs" / "first" / "checkpoints").env_steps
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(folder, undisturbed)
    for part in before:
        shutil.rmtree(folder / part)

    said = run_rlcar(folder, "restore", target)
    assert "restored models/versions" in said
    assert {part: contents(folder / part) for part in before} == before
    assert actions(folder) == acted
    assert Registry(folder / "models").resolve("champion") == 1
    states = []
    for place in (folder, undisturbed):
        run_rlcar(
            place,
            *("train", "--resume", "runs/first", "--local", "--set", "training.env_steps=1024"),
        )
        newest = checkpoint.latest(place / "runs" / "first" / "checkpoints")
        assert newest.env_steps == 1024 > stopped_at
        assert checkpoint.damage(newest) == ""
        states.append((newest.path / "state.safetensors").read_bytes())
    assert states[0] == states[1]
    state = json.loads((folder / "backup-state.json").read_text())
    assert state["consecutive_failures"] == 0
    assert state["last_verify_timestamp_seconds"] >= state["last_success_timestamp_seconds"] - 60
    assert "rlcar_backup_files" in (folder / "backup.prom").read_text()


@pytest.mark.slow
def test_a_backup_that_is_killed_is_repeated_and_ctrl_c_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "data").mkdir()
    for number in range(60):
        (tmp_path / "data" / f"{number}.bin").write_bytes(
            np.random.default_rng(number).bytes(4 << 20)
        )
    command = [sys.executable, "-m", "rlcar.cli", "backup", "backup"]
    for stop in ("terminate", "kill"):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        have = len(list(tmp_path.glob("backup/blobs/*/*")))
        wait_until(lambda: len(list(tmp_path.glob("backup/blobs/*/*"))) > have + 2)  # noqa: B023
        getattr(process, stop)()
        stderr = process.communicate(timeout=60)[1]
        assert not list(tmp_path.glob("backup/snapshots/*"))
        if stop == "terminate":
            assert process.returncode == 130
            assert "stopping; what is done stays: rlcar backup backup continues" in stderr
    blobs = len(list(tmp_path.glob("backup/blobs/*/[0-9a-f]*")))
    said = run_rlcar(tmp_path, "backup", "backup")
    assert f"figure uploaded_blobs={60 - blobs}" in said
