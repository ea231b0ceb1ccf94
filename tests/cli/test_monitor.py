"""The monitor's picture fits a narrow terminal and shows what runs first."""

import io
import json
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rlcar import cli
from rlcar.cli.monitor import Snapshot, picture
from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.runs.monitor import Card, RunStatus
from rlcar.runs.prometheus_alerts import Alert
from rlcar.runs.run import Run
from rlcar.system import terminal


def drawn(snapshot, width=80):
    screen = io.StringIO()
    Console(file=screen, width=width).print(picture(snapshot))
    return screen.getvalue()


def test_what_runs_comes_first_and_what_is_not_known_is_left_out():
    runs = [
        RunStatus("live [1]", "running", 512, 2048, eta_s=62.0, reward=2.5, learner_restarts=3.0),
        RunStatus("old", "dead", 9, 10, error="no [memory]", lap_rate=float("nan")),
    ]
    screen = drawn(Snapshot(runs, cards=[Card(0, "H200", 0.87, 40960.0, 143771.0)]))
    assert screen.index("live [1]") < screen.index("old")
    for text in ("512 of 2,048", "ETA 0:01:02", "reward 2.50", "3 restarts", "no [memory]"):
        assert text in screen
    assert "nan" not in screen
    assert "None" not in screen
    assert "87%" in screen
    assert "40.0 of 140.4 GiB" in screen


def test_no_runs_are_said_to_be_none():
    assert drawn(Snapshot([], cards=[])).strip() == "no runs yet"


def test_json_has_all_numbers_of_a_run_by_name(tmp_path, monkeypatch, capsys):
    with Run(tmp_path / "one", make_config(mode="test")) as run:
        run.log(256, 0)
    capsys.readouterr()
    arguments = ["rlcar", "monitor", "--runs", str(tmp_path), "--json"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        cli.main()
    (one,) = json.loads(capsys.readouterr().out)["runs"]
    assert end.value.code == 0
    assert (one["name"], one["state"], one["env_steps"]) == ("one", "stopped", 256)
    assert set(one) == set(RunStatus._fields)


def test_alerts_are_drawn_with_their_meaning_and_runbook():
    alerts = [
        Alert("Down", "firing", "critical", {"run": "a [b]"}, "It is down.", "d/Down.md", 0.0, 1.0),
        Alert("Slow", "pending", "warning", {}, "", "", None, None),
    ]
    screen = drawn(Snapshot([], alerts=alerts), 120)
    for text in ("Down", "critical", "firing", "run=a [b]", "It is down.", "d/Down.md", "pending"):
        assert text in screen
    assert "no alert is pending" in drawn(Snapshot([], alerts=[]))
    assert "cannot be reached" in drawn(Snapshot([], alerts_problem="it cannot be reached"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--prometheus", "localhost:9090"], "is not the address of a server"),
        (["--prometheus", "http://127.0.0.1:1"], "cannot be reached (Connection refused)"),
        (
            ["--prometheus", "http://127.0.0.1:1", "--prometheus-token-file", "gone"],
            "--prometheus-token-file gone cannot be read: No such file",
        ),
        (["--metrics-port", "0", "--watch"], "shows nothing: leave out RUN"),
        (["--metrics-port", "70000"], "give a number from 0 to 65,535"),
        (["--metrics-port", "0", "--runs", "gone"], "gone is not a folder of runs"),
    ],
)
def test_a_mistake_about_prometheus_is_one_sentence(options, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(terminal, "end_when_closed", lambda: None)  # it is for a whole process
    (tmp_path / "runs").mkdir()
    result = CliRunner().invoke(cli.app, ["monitor", *options])
    assert isinstance(result.exception, UserError)
    assert sentence in str(result.exception)
