"""Log lines for programs."""

import io
import json
import logging
import socket

import pytest
from rich.console import Console

from rlcar.runs.metrics import ProgressLine
from rlcar.system import logs


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """A process chooses its logging once; a test gives it back."""
    root, ours = logging.getLogger(), logging.getLogger("rlcar")
    before = root.handlers[:], root.level, ours.level
    for name in ("RLCAR_LOG_FORMAT", "RLCAR_RUN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield
    root.handlers[:], level, ours_level = before[0], before[1], before[2]
    root.setLevel(level)
    ours.setLevel(ours_level)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_each_line_says_which_run_and_which_of_its_processes(capsys):
    logs.set_up("json", "quick", "driver")
    logging.getLogger("rlcar.x").info("one %s", "thing", extra={"fields": {"env_steps": 5}})
    (line,) = lines(capsys)
    assert line["message"] == "one thing"
    assert line["env_steps"] == 5
    assert (line["run"], line["actor"], line["host"]) == ("quick", "driver", socket.gethostname())
    assert line["time"].endswith("+00:00")


def test_a_traceback_stays_in_its_line(capsys):
    logs.set_up("json", "quick")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("rlcar.x").exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: two\nlines" in line["exception"]


def test_another_process_takes_over_format_and_run(capsys, monkeypatch):
    logs.set_up("json", "quick")
    inherited = logs.inherited()
    logs.set_up("text")
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)
    logs.take_over("simulator-3.0")
    assert [(line["run"], line["actor"]) for line in lines(capsys)] == [("quick", "simulator-3.0")]


def test_nothing_is_taken_over_from_a_process_that_chose_nothing(capsys):
    assert logs.inherited({}) == {}
    logs.take_over("learner")
    assert not logs.are_json()


def test_progress_is_an_object_with_the_metrics_own_names(capsys):
    logs.set_up("json", "quick")
    screen = io.StringIO()
    metrics = {"episode/reward": 2.5, "model/loss": float("nan"), "unknown": 1.0}
    with ProgressLine(100, console=Console(file=screen, force_terminal=True)) as line:
        line.update(40, metrics)
    (said,) = lines(capsys)
    assert said["message"] == "progress"
    assert (said["env_steps"], said["total_env_steps"]) == (40, 100)
    assert said["episode/reward"] == 2.5
    assert "model/loss" not in said
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" not in screen.getvalue()
