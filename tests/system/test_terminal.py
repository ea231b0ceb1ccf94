"""Commands whose terminal, pipe or descriptors go away while they work."""

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest

from rlcar.runs.metrics import ProgressLine
from rlcar.runs.metrics_file import read_metrics
from rlcar.runs.monitor import RunReader
from rlcar.storage import checkpoint
from rlcar.system import terminal
from rlcar.system.console import make_console
from tests.support.tiny_run import SHORT_TRAINING
from tests.support.waiting import wait_until

TRAIN = [*SHORT_TRAINING, "--name", "p"]
FAST = ["--set", "training.log_every_s=0.001", "--set", "training.checkpoint_every_s=0.05"]
RLCAR = [sys.executable, "-m", "rlcar.cli"]
PATIENCE_S = 240.0


def assert_complete(folder):
    """A whole training: its checkpoint, its rows, its report, and nobody's complaint in them."""
    assert checkpoint.latest_sound(folder / "checkpoints").env_steps == 2048
    assert read_metrics(folder / "metrics.jsonl")[-1]["env_steps"] == 2048
    assert json.loads((folder / "report.json").read_text())["tracks"] > 0
    assert RunReader(folder).status().state == "finished"


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def broken_pipe():
    """Standard output as a pipe that nobody reads any more."""
    read, write = os.pipe()
    # Not in a fixture: pytest sets its own stream again when the test begins.
    with os.fdopen(write, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        os.close(read)
        yield stream


def test_what_nobody_reads_any_more_goes_into_the_log(tmp_path):
    log = tmp_path / terminal.LOG
    with broken_pipe() as stream:
        with terminal.outlived(log):
            line = ProgressLine(100, plain_every_s=0.0)
            with line:
                for env_steps in (10, 20, 30):
                    line.update(env_steps, {})
            say("the end")
        assert sys.stdout is stream
    text = log.read_text()
    assert "the output was closed (Broken pipe) and goes on here" in text
    assert text.splitlines()[-1] == "the end"
    assert "30/100 env steps" in text


def test_what_was_coloured_on_the_terminal_is_plain_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    log = tmp_path / terminal.LOG
    main, side = pty.openpty()
    with os.fdopen(side, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with terminal.outlived(log):
            console = make_console()
            console.print("[bold red]error:[/] [link=https://x.org]on[/] the terminal")
            assert b"\x1b[1;31merror:" in os.read(main, 10_000)
            os.close(main)
            console.print("[bold red]error:[/] [link=https://x.org]in[/] the log")
    assert log.read_text().splitlines()[-1] == "error: in the log"


def test_without_a_log_or_with_a_disk_that_refuses_it_is_lost_and_nothing_else(tmp_path):
    for log in (None, tmp_path / "no such folder" / "log"):
        with broken_pipe(), terminal.outlived(log):
            for _ in range(3):
                say("lost")


def test_a_closed_stream_is_survived_and_a_mistake_of_ours_is_not_hidden(monkeypatch, tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with terminal.outlived():
            with pytest.raises(UnicodeEncodeError):
                say("ü")
            stream.close()
            say("lost")
            assert not sys.stdout.isatty()


@pytest.mark.slow
@pytest.mark.long
def test_a_training_whose_output_ends_at_head_goes_on_to_its_report(tmp_path):
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*RLCAR, *TRAIN, *FAST], cwd=tmp_path, stdout=subprocess.PIPE, stderr=said
        )
    # As `| head -1` does, and before a progress line: those come every ten seconds and at the end.
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 0, (tmp_path / "said").read_text()
    folder = tmp_path / "runs/p"
    assert_complete(folder)
    assert "2048/2048 env steps" in (folder / terminal.LOG).read_text()


@pytest.mark.slow
def test_a_training_outlives_the_terminal_that_it_was_started_in(tmp_path):
    main, side = pty.openpty()
    # `setsid` makes the terminal that of the process; in a fork of this one that may deadlock.
    process = subprocess.Popen(
        ["setsid", "--ctty", *RLCAR, *TRAIN, *FAST],
        cwd=tmp_path,
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    assert b"run folder" in os.read(main, 10_000)
    os.close(main)  # the kernel sends a hang-up; what is written from now on fails
    try:
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
    assert_complete(tmp_path / "runs/p")
    text = (tmp_path / "runs/p" / terminal.LOG).read_text()
    assert "Input/output error" in text
    assert "\x1b" not in text, "no bars in a log"


@pytest.mark.long
def test_a_training_without_any_standard_descriptor_writes_into_no_other_file(tmp_path):
    command = [*RLCAR, *TRAIN, *FAST]
    script = 'exec "$@" <&- >&- 2>&-'
    process = subprocess.run(
        ["sh", "-c", script, "sh", *command], cwd=tmp_path, timeout=PATIENCE_S, check=False
    )
    assert process.returncode == 0
    assert_complete(tmp_path / "runs/p")


@pytest.mark.slow
def test_ctrl_c_in_a_training_without_a_terminal_still_saves(tmp_path):
    """What the signal handler says has nowhere to go, which must not end the training."""
    process = subprocess.Popen(
        [*RLCAR, *TRAIN, *FAST, "--set", "training.env_steps=10000000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    process.stderr.close()
    checkpoints = tmp_path / "runs/p/checkpoints"
    wait_until(lambda: checkpoint.latest(checkpoints), PATIENCE_S)
    before = checkpoint.latest(checkpoints).env_steps
    # Directly after a checkpoint, the last one would be of the same step.
    rows = tmp_path / "runs/p/metrics.jsonl"
    wait_until(lambda: read_metrics(rows)[-1]["env_steps"] > before, PATIENCE_S)
    process.terminate()
    assert process.wait(PATIENCE_S) == 130
    assert checkpoint.latest_sound(checkpoints).env_steps > before
    log = (tmp_path / "runs/p" / terminal.LOG).read_text()
    assert "stopped; continue with: rlcar train --resume runs/p --local" in log


def test_a_monitor_whose_reader_has_left_ends_in_silence(tmp_path):
    (tmp_path / "runs").mkdir()
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [*RLCAR, "monitor", "--watch", "--every", "0.2"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=said,
        )
    process.stdout.close()
    try:
        assert process.wait(PATIENCE_S) == terminal.EXIT_CODE
    finally:
        process.kill()
    assert (tmp_path / "said").read_text() == ""
