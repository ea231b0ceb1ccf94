"""Means, rates, and what is written where."""

import contextlib
import io
import json
import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from rlcar.errors import UserError
from rlcar.runs.metrics import (
    MetricsWriter,
    ProgressLine,
    Rate,
    RunningMean,
    first_non_finite,
    read_progress_line,
)
from rlcar.runs.metrics_file import read_metrics
from rlcar.system import heartbeat


@pytest.fixture(autouse=True)
def _sign_of_life():
    """The progress line shows how long this process has been silent, tests before this one too."""
    heartbeat.beat()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_a_running_mean_forgets_all_but_the_last_values():
    mean = RunningMean(window=3)
    assert math.isnan(mean.mean())
    mean.add(1.0)
    assert mean.mean() == 1.0
    for value in (2.0, 3.0, 7.0):
        mean.add(value)
    assert mean.mean() == 4.0


def test_a_rate_counts_from_its_start_and_then_over_its_window():
    clock = Clock()
    rate = Rate(window_s=10.0, clock=clock)
    assert rate.per_s() == 0.0
    clock.now_s += 2.0
    rate.add(30)
    assert rate.per_s() == 15.0
    clock.now_s += 3.0
    assert rate.per_s() == 6.0
    clock.now_s += 6.0
    rate.add(20)
    assert rate.per_s() == 5.0
    clock.now_s += 1.0
    assert rate.per_s() == 2.0
    clock.now_s += 20.0
    assert rate.per_s() == 0.0


@pytest.mark.parametrize("make", [lambda: RunningMean(0), lambda: Rate(window_s=0.0)])
def test_an_empty_window_is_refused(make):
    with pytest.raises(ValueError, match="needs a window"):
        make()


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("-inf")])
def test_the_first_metric_that_is_not_finite_is_named(bad):
    assert first_non_finite({"model/loss": 1.0, "actor/loss": bad, "critic/loss": bad}) == (
        "actor/loss"
    )
    assert first_non_finite({"model/loss": 1.0, "train_steps": 3}) is None


def test_rows_have_counters_first_and_null_for_what_is_not_finite(tmp_path):
    clock = Clock()
    with MetricsWriter(tmp_path, clock=clock) as writer:
        clock.now_s += 1.5
        writer.write(64, {"model/loss": np.float32(0.5), "actor/loss": math.nan})
        writer.write(128, {"model/loss": math.inf})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines[0] == ('{"env_steps": 64, "time_s": 1.5, "model/loss": 0.5, "actor/loss": null}')
    assert json.loads(lines[1]) == {"env_steps": 128, "time_s": 1.5, "model/loss": None}
    header, first, second = read_events(tmp_path)
    assert header.file_version == "brain.Event:2"
    assert first.step == 64
    assert [(value.tag, value.simple_value) for value in first.summary.value] == [
        ("model/loss", 0.5)
    ]
    assert (second.step, len(second.summary.value)) == (128, 0)


def read_events(folder):
    """All events of a run in the order in which TensorBoard reads them."""
    events = []
    for path in sorted((folder / "tensorboard").iterdir()):
        rest = path.read_bytes()
        while rest:
            length, check_of_length = struct.unpack("<QI", rest[:12])
            data, (check,) = rest[12 : 12 + length], struct.unpack_from("<I", rest, 12 + length)
            assert masked_crc32c(rest[:8]) == check_of_length
            assert masked_crc32c(data) == check
            events.append(Event.FromString(data))
            rest = rest[16 + length :]
    return events


def test_a_row_is_on_disk_as_soon_as_it_is_written(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, {"a/b": 2.0})
        assert read_metrics(tmp_path / "metrics.jsonl")[0]["a/b"] == 2.0


def test_a_full_disk_is_an_error_and_not_a_wait(tmp_path):
    writer = MetricsWriter(tmp_path)
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), open_file(tmp_path / "tensorboard"))
    with pytest.raises(OSError, match="No space left"):
        writer.write(1, {"a/b": 2.0})
    with pytest.raises(OSError, match="No space left"):  # what has not been written yet
        writer.close()
    writer.close()


def open_file(folder):
    """The descriptor of this process's file in a folder."""
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if Path(os.readlink(link)).parent == folder:
                return int(link.name)
    raise AssertionError(f"no open file in {folder}")


def test_a_metric_cannot_overwrite_a_counter(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match="'time_s'"):
            writer.write(1, {"time_s": 2.0})
        assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_counters_and_time_do_not_go_back_when_a_run_is_resumed(tmp_path):
    clock = Clock()
    with MetricsWriter(tmp_path, clock=clock) as writer:
        for env_steps in (10, 20, 30):
            clock.now_s += 1.0
            writer.write(env_steps, {"a/b": env_steps})
    clock.now_s += 1000.0
    with MetricsWriter(tmp_path, resume_env_steps=20, clock=clock) as writer:
        clock.now_s += 0.5
        writer.write(25, {"a/b": -1})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["env_steps"], row["time_s"]) for row in rows] == [(10, 1.0), (20, 2.0), (25, 2.5)]
    assert rows[-1]["a/b"] == -1.0
    start, row = read_events(tmp_path)[-2:]
    assert (start.session_log.status, start.step) == (SessionLog.START, 21)
    assert row.step == 25


def test_without_resuming_rows_are_appended_after_a_torn_one_is_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"env_steps": 1, "time_s": 4.0}\n{"env_steps": 2, "ti')
    with MetricsWriter(tmp_path) as writer:
        writer.write(3, {})
    assert [row["env_steps"] for row in read_metrics(path)] == [1, 3]


def test_a_whole_last_line_without_its_newline_is_kept_apart_from_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"env_steps": 1}')
    with MetricsWriter(tmp_path) as writer:
        writer.write(2, {})
    assert [row["env_steps"] for row in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("torn", ['{"env_steps": 2, "a', "{", "12", ""])
def test_a_torn_last_line_is_not_read(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"env_steps": 1}\n' + torn)
    assert read_metrics(path) == [{"env_steps": 1}]


@pytest.mark.parametrize("bad", ["{", "12"])
def test_a_bad_line_before_the_last_is_named(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"env_steps": 1}\n' + bad + '\n{"env_steps": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is not a row"):
        read_metrics(path)


FIELDS = {
    "critic/loss": 0.25,
    "rollout/env_steps_per_s": 1234.4,
    "episode/reward": -1.5,
    "episode/lap_rate": 0.5,
    "model/kl_nats": 9.0,
}


def test_without_a_terminal_plain_lines_come_every_ten_seconds_and_at_the_end():
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=False, width=40)
    with ProgressLine(1000, console=console, clock=clock) as line:
        line.update(500, FIELDS)
        clock.now_s += 9.9
        line.update(510, {})
        assert out.getvalue() == ""
        clock.now_s += 0.1
        line.update(600, {"episode/reward": math.nan})
        assert len(out.getvalue().splitlines()) == 1
        clock.now_s += 1.0
        line.update(700, {"episode/reward": 3.0})
    first, last = out.getvalue().splitlines()
    # 100 steps in 10 s leave 400 for 40 s; then 200 in 11 s leave 300 for 16.5 s.
    assert first == "600/1000 env steps (60%), ETA 0:00:40  env/s 1234  laps 50%  value 0.25"
    assert last.startswith("700/1000 env steps (70%), ETA 0:00:16  env/s 1234  reward 3.00")


def test_the_expected_end_may_change_and_may_be_unknown():
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=False)
    with ProgressLine(10**9, console=console, clock=clock, plain_every_s=1.0) as line:
        for expected in (None, 500, 400):
            line.expect(expected)
            line.update(int(100 * (clock.now_s - 50.0)), {})
            clock.now_s += 1.0
    *_, before_last, last = out.getvalue().splitlines()
    assert before_last == "100/500 env steps (20%), ETA 0:00:04"
    assert last == "200/400 env steps (50%), ETA 0:00:02"


def test_a_bar_keeps_its_rate_when_the_expected_end_changes():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, color_system=None)
    with ProgressLine(10**9, console=console) as line:
        line.update(0, {})
        line.expect(1000)
        line.update(250, {})
    assert "25%" in out.getvalue()


def test_a_plain_line_can_be_read_back_and_others_are_none():
    screen = io.StringIO()
    numbers = {"episode/reward": -0.5, "episode/lap_rate": 0.42, "model/loss": 1.5e-7}
    with ProgressLine(2048, console=Console(file=screen)) as line:
        line.update(512, numbers)
    read = read_progress_line(screen.getvalue().splitlines()[0])
    assert (read.env_steps, read.total_env_steps) == (512, 2048)
    assert read.metrics == pytest.approx(numbers)
    for other in ("", "run folder: runs/x", "512/2048 env steps"):
        assert read_progress_line(other) is None


def test_a_progress_line_that_has_nothing_new_to_say_says_nothing_at_the_end():
    out = io.StringIO()
    with ProgressLine(1000, console=Console(file=out, force_terminal=False)):
        pass
    assert out.getvalue() == ""


def test_on_a_terminal_there_is_a_bar_with_the_percentage_and_the_fields():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, color_system=None)
    with ProgressLine(1000, console=console) as line:
        line.update(250, FIELDS)
    shown = out.getvalue()
    assert "25%" in shown
    assert "env/s 1234  reward -1.50  laps 50%  value 0.25" in shown
    assert "env steps (" not in shown
