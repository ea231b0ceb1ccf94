"""Rows reach a tracker in their order, and an outage costs the training no time."""

import logging
import threading
import time

import pytest

from rlcar.config import make_config
from rlcar.errors import ConfigError
from rlcar.runs.tracking import background
from rlcar.runs.tracking.background import BackgroundTracker
from rlcar.runs.tracking.open import mlflow_uri, open_tracking
from rlcar.runs.tracking.tracker import Row, TrackingError, params_of, tags_of
from tests.support.waiting import wait_until


class Memory:
    """A tracker that keeps rows, unless it is away."""

    name, identity = "memory", "one"

    def __init__(self):
        self.rows, self.ended, self.tries = [], None, 0
        self.is_there = threading.Event()
        self.is_there.set()

    def write(self, rows):
        self.tries += 1
        if not self.is_there.is_set():
            raise ConnectionError("no route to host")
        self.rows.extend(rows)

    def close(self, is_finished):
        self.ended = is_finished


def row(env_steps):
    return Row(env_steps, 0, {"episode/reward": float(env_steps)})


def test_rows_arrive_in_their_order_before_the_end():
    memory = Memory()
    tracker = BackgroundTracker(memory)
    for env_steps in range(100):
        tracker.write(row(env_steps))
    tracker.close(is_finished=True)
    assert [one.env_steps for one in memory.rows] == list(range(100))
    assert memory.ended is True


def test_after_an_outage_every_row_arrives_once(caplog):
    memory = Memory()
    memory.is_there.clear()
    tracker = BackgroundTracker(memory, first_pause_s=0.01)
    began_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        for env_steps in range(50):
            tracker.write(row(env_steps))
        assert time.monotonic() - began_s < 5.0
        wait_until(lambda: memory.tries >= 3)
    memory.is_there.set()
    tracker.close(is_finished=False)
    assert [one.env_steps for one in memory.rows] == list(range(50))
    assert memory.ended is False
    said = [record.getMessage() for record in caplog.records]
    assert said == ["memory takes no metrics (no route to host): trying again"]


def test_what_did_not_arrive_is_counted_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(background, "_MOST_WAITING", 10)
    memory = Memory()
    memory.is_there.clear()
    tracker = BackgroundTracker(memory)
    for env_steps in range(15):
        tracker.write(row(env_steps))
    tracker.close(is_finished=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "15 rows of metrics did not reach memory; metrics.jsonl has all of them" in said


def test_a_run_without_trackers_writes_no_file_of_them(tmp_path):
    with open_tracking(tmp_path, make_config()) as tracking:
        tracking.write(1, {"episode/reward": 1.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_one_sentence_that_names_its_extra(tmp_path, name):
    try:
        __import__(name)
    except ModuleNotFoundError:
        config = make_config(overrides=[f"tracking.trackers=[{name}]"])
        with pytest.raises(TrackingError, match=rf"pip install 'rlcar\[{name}\]'"):
            open_tracking(tmp_path, config)
    else:
        pytest.skip(f"{name} is installed")


def test_the_settings_of_other_algorithms_are_no_parameters_of_a_run():
    params = params_of(make_config(overrides=["algorithm=td3", "training.cars=3"]))
    assert params["training.cars"] == "3"
    assert any(name.startswith("td3.") for name in params)
    assert not any(name.startswith("dreamer.") for name in params)


def test_tags_lead_to_the_data_and_the_parent(tmp_path):
    config = make_config(overrides=["training.start_from=runs/first/best/00000100"])
    tags = tags_of(tmp_path / "second", config, "abc")
    assert tags["rlcar.run"] == "second"
    assert tags["rlcar.start_from"] == "runs/first/best/00000100"
    assert "rlcar.data" not in tags


def test_the_database_is_beside_the_run_unless_something_else_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert mlflow_uri("", tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert mlflow_uri("", tmp_path) == "http://tracking:5000"
    assert mlflow_uri("sqlite:////srv/x.db", tmp_path) == "sqlite:////srv/x.db"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tracking.trackers=[mlfow]", "mlflow"),
        ("tracking.mlflow_uri=postgresql://me:secret@host/db", "it holds a password"),
        ("tracking.project=a/b", "tracking.project"),
        ("tracking.projct=a", "did you mean 'project'?"),
    ],
)
def test_a_wrong_setting_is_one_sentence(override, said):
    with pytest.raises(ConfigError, match=said) as caught:
        make_config(overrides=[override])
    assert "\n" not in str(caught.value)
