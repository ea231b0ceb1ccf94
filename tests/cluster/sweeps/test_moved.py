"""A sweep whose folder was moved or copied goes on there, and leaves the original alone."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import time

import pytest
import yaml

from rlcar.runs.metrics_file import read_metrics

pytestmark = [
    pytest.mark.ray,
]

PATIENCE_S = 240.0
SWEEP = {
    "preset": "ppo",
    "mode": "test",
    "metric": "evaluation/progress",
    "set": {
        "training.evaluate_every_env_steps": 512,
        "training.block_length": 32,
        "ppo.epochs": 1,
    },
    "scheduler": {"type": "asha", "grace_env_steps": 2048, "reduction_factor": 2},
    "budget": {"trials": 2, "env_steps": 6144, "concurrent": 1},
    "space": {"ppo.learning_rate": {"loguniform": [1e-4, 1e-2]}},
}


def rows_of(folder):
    path = folder / "history.jsonl"
    return read_metrics(path) if path.exists() else []


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def command_after(text, words):
    """The command that a message tells the user to continue with, as a shell would read it."""
    (line,) = [line for line in text.splitlines() if words in line]
    return shlex.split(line.partition(words)[2])


@pytest.mark.long
@pytest.mark.slow
def test_a_copied_sweep_goes_on_with_the_printed_command_and_leaves_the_original_alone(
    start_rlcar, tmp_path
):
    (tmp_path / "my files").mkdir()
    (tmp_path / "my files/sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    folder = tmp_path / "many sweeps/one"
    arguments = ["tune", "my files/sweep.yaml", "--sweeps", "many sweeps", "--name", "one"]
    process, output = start_rlcar(*arguments)
    end_s = time.monotonic() + PATIENCE_S
    while len(rows_of(folder)) < 4:
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < end_s, output.read_text()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130, output.read_text()
    program, *again = command_after(output.read_text(), "continue with: ")
    assert program == "rlcar"
    before, results = digests(folder), json.loads((folder / "results.json").read_text())
    assert "unfinished" in {trial["status"] for trial in results["trials"]}

    # Somewhere else, below another folder and by another name; the original stays where it is.
    shutil.copytree(folder, tmp_path / "elsewhere/two", symlinks=True)
    copied = [{"many sweeps": "elsewhere", "one": "two"}.get(word, word) for word in again]
    process, output = start_rlcar(*copied)
    assert process.wait(PATIENCE_S) == 0, output.read_text()
    assert digests(folder) == before
    finished = json.loads((tmp_path / "elsewhere/two/results.json").read_text())["trials"]
    assert len(finished) == 2
    assert {trial["status"] for trial in finished} <= {"done", "stopped"}
    # It went on from its checkpoint: what had been reported was not driven again.
    assert {trial["failures"] for trial in finished} == {0}
    for name in ("000", "001"):
        steps = [
            row["env_steps"] for row in rows_of(tmp_path / "elsewhere/two") if row["trial"] == name
        ]
        assert steps == sorted(set(steps))

    # The printed command works as it is, where it was printed, also after the folder was moved
    # away and back.
    (tmp_path / "many sweeps").rename(tmp_path / "away")
    (tmp_path / "away").rename(tmp_path / "many sweeps")
    process, output = start_rlcar(*again)
    assert process.wait(PATIENCE_S) == 0, output.read_text()
