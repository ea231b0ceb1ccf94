"""Alerts fire and clear through Prometheus and Alertmanager, by real trainings in real trouble."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from rlcar.runs.metrics_file import read_metrics
from tests.deploy.monitoring.stack import Stack, needs_programs, running_stack
from tests.support.small_disk import mounted_disk
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, needs_programs]

RLCAR = Path(sys.executable).with_name("rlcar")
ENDLESS = ("--set", "training.env_steps=1000000000")
RUN = "troubled"


@contextlib.contextmanager
def process(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `rlcar`; what it prints goes into a log beside the runs."""
    with (folder / f"{words[0]}.log").open("ab") as log:
        started = subprocess.Popen([RLCAR, *words], stdout=log, stderr=log, cwd=folder)
        try:
            yield started
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(started.pid, signal.SIGCONT)
            started.kill()
            started.wait()


def training(folder: Path, *words: str) -> contextlib.AbstractContextManager:
    # The plain agent, which compiles in seconds.
    options = ("--local", "--mode", "test", "--algorithm", "documented", "--metrics-port", "0")
    return process(folder, "train", "--runs", "runs", *options, *words)


@contextlib.contextmanager
def observed(folder: Path, logs: Path) -> Iterator[Stack]:
    """Runs the exporter of runs, Prometheus and Alertmanager."""
    (folder / "runs").mkdir(exist_ok=True)
    port = free_port()
    exporter = ("monitor", "--runs", str(folder / "runs"), "--metrics-port", str(port))
    with (
        process(logs, *exporter, "--frozen-after-s", "5"),
        running_stack(
            logs / "stack", {"rlcar-runs": [port]}, str(folder / "runs" / "targets" / "*.json")
        ) as stack,
    ):
        yield stack


def wait_until_training(stack: Stack, folder: Path, checkpoints: int = 1) -> None:
    found = folder / "runs" / RUN / "checkpoints"
    wait_until(lambda: found.is_dir() and len(list(found.glob("*/DONE"))) >= checkpoints, 300)
    wait_until(lambda: stack.query(f'up{{run="{RUN}"}} == 1'), 60)


def note(**figures: float) -> None:
    """Adds figures to the file that RLCAR_FIGURES names, if it does."""
    path = os.environ.get("RLCAR_FIGURES")
    if path:
        known = json.loads(Path(path).read_text()) if Path(path).exists() else {}
        Path(path).write_text(json.dumps(known | figures, indent=2) + "\n")


def test_a_training_that_is_stopped_raises_alerts_which_clear_when_it_continues(tmp_path):
    with (
        observed(tmp_path, tmp_path) as stack,
        training(tmp_path, "--name", RUN, *ENDLESS, "--set", "training.checkpoint_every_s=2") as it,
    ):
        wait_until_training(stack, tmp_path)
        assert not stack.is_firing("TrainingDown")
        it.send_signal(signal.SIGSTOP)
        fired_s = stack.wait_for("TrainingDown", "firing")
        frozen_s = stack.wait_until_firing("TrainingStalled")
        shown = subprocess.run(
            [
                *(RLCAR, "monitor", "--runs", "runs", "--frozen-after-s", "5"),
                *("--prometheus", stack.url),
            ],
            **{"cwd": tmp_path, "capture_output": True, "text": True, "check": True},
        ).stdout
        assert "TrainingDown" in shown
        assert "frozen" in shown
        assert "runbooks" in shown
        it.send_signal(signal.SIGCONT)
        cleared_s = stack.wait_for("TrainingDown", "resolved")
        wait_until(lambda: not stack.is_firing("TrainingStalled"), 120)
        before = read_metrics(tmp_path / "runs" / RUN / "metrics.jsonl")[-1]["env_steps"]
        wait_until(
            lambda: (
                read_metrics(tmp_path / "runs" / RUN / "metrics.jsonl")[-1]["env_steps"] > before
            ),
            120,
        )
    note(stall_fired_s=fired_s, stall_frozen_s=frozen_s, stall_resolved_s=cleared_s)


def test_a_training_that_diverges_raises_alerts_which_clear_when_it_is_resumed(tmp_path):
    # Thousands of env steps before the first train step, so that it is scraped before it fails.
    diverging = ("--set", "documented.learning_rate=1e38", "--set", "replay.min_env_steps=8192")
    with observed(tmp_path, tmp_path) as stack:
        with training(tmp_path, "--name", RUN, *ENDLESS, *diverging) as it:
            diverged_s = stack.wait_for("TrainingDiverged", "firing", 600)
            assert it.wait(600) == 2  # after two returns to a checkpoint
        failed_s = stack.wait_for("TrainingFailed", "firing")
        assert stack.is_firing("TrainingDown")
        cleared_s = stack.wait_for("TrainingDiverged", "resolved")
        rates = (
            *("--set", "documented.learning_rate=1e-4", "--set", "training.rollbacks=0"),
            *("--set", "replay.min_env_steps=512"),
        )
        mended = (*rates, "--set", "training.checkpoint_every_s=2")
        with training(tmp_path, "--name", RUN, "--resume", "auto", *ENDLESS, *mended):
            wait_until_training(stack, tmp_path)
            resumed_s = stack.wait_for("TrainingFailed", "resolved")
            wait_until(lambda: not stack.is_firing("TrainingDown"), 120)
    note(nan_fired_s=diverged_s, nan_failed_s=failed_s, nan_resolved_s=cleared_s)
    note(nan_resumed_s=resumed_s)


def test_a_full_disk_raises_alerts_which_clear_when_there_is_room_again(tmp_path):
    with (
        mounted_disk(tmp_path / "disk", 1_200_000) as disk,
        observed(disk, tmp_path) as stack,
    ):
        options = (*ENDLESS, "--set", "training.checkpoint_every_s=1")
        ballast = disk / "ballast"
        with training(disk, "--name", RUN, *options) as it:
            wait_until_training(stack, disk)
            assert not stack.is_firing("DiskFull")
            fill(ballast)
            full_s = stack.wait_for("DiskFull", "firing")
            assert it.wait(300) == 2  # a checkpoint or a row of metrics could not be written
        failed_s = stack.wait_for("TrainingFailed", "firing")
        ballast.unlink()
        cleared_s = stack.wait_for("DiskFull", "resolved")
        with training(disk, "--name", RUN, "--resume", "auto", *options):
            resumed_s = stack.wait_for("TrainingFailed", "resolved")
            wait_until(lambda: not stack.is_firing("TrainingDown"), 120)
    note(disk_fired_s=full_s, disk_failed_s=failed_s, disk_resolved_s=cleared_s)
    note(disk_resumed_s=resumed_s)


def fill(path: Path) -> None:
    """Writes zeros until nothing fits any more."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
