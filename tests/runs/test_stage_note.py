"""The note that says which attempt of a curriculum a run is, and who shows it."""

import json

import pytest
from prometheus_client import CollectorRegistry

from rlcar.cli.monitor import Snapshot, picture
from rlcar.config import make_config
from rlcar.runs import stage_note
from rlcar.runs.collector import RunsCollector
from rlcar.runs.exported import exported_of_note
from rlcar.runs.monitor import RunReader
from rlcar.runs.run import Run
from rlcar.runs.stage_note import StageNote
from rlcar.system.console import make_console
from serve.live.run_follower import RunFollower

NOTE = StageNote("tour", 2, 5, "narrow", 3, 5, 4, 0.55, 700.0)
SENTENCE = "stage 2 of 5 (narrow), attempt 3 of 5; passes at success 55 % and mean reward 700"


@pytest.fixture
def folder(tmp_path):
    """A run that is in training, with a note."""
    stage_note.write(tmp_path, NOTE)
    with Run(tmp_path, make_config(mode="test")):
        yield tmp_path


def test_a_note_is_read_as_it_was_written_and_says_its_thresholds(folder):
    assert stage_note.read(folder) == NOTE
    assert NOTE.sentence() == SENTENCE
    assert "success" not in NOTE._replace(success_rate=None).sentence()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({**NOTE._asdict(), "stage": 0}),
     json.dumps({**NOTE._asdict(), "stage_name": 7}),
     json.dumps({**NOTE._asdict(), "success_rate": "x"}),
     json.dumps({**NOTE._asdict(), "regressions": None})],
)  # fmt: skip
def test_a_damaged_note_counts_as_none(tmp_path, content):
    (tmp_path / stage_note.FILE).write_text(content)
    assert stage_note.read(tmp_path) is None
    assert stage_note.read(tmp_path / "missing") is None


def test_the_monitor_and_the_page_show_stage_attempt_and_thresholds(folder):
    status = RunReader(folder).status()
    console = make_console(width=200, record=True)
    console.print(picture(Snapshot([status])))
    assert SENTENCE in " ".join(console.export_text().split())
    follower = RunFollower(folder)
    follower.read()
    assert follower.curriculum == SENTENCE


def test_the_exporter_of_runs_exports_the_note_of_an_active_run(folder):
    reading = RunReader(folder).reading()
    registry = CollectorRegistry()
    registry.register(RunsCollector(lambda: [reading], folder))
    labels = {"run": folder.name}
    values = {
        name: registry.get_sample_value(f"rlcar_curriculum_{name}", labels)
        for name in ("stage", "attempt", "regressions", "success_threshold", "reward_threshold")
    }
    assert list(values.values()) == [2, 3, 4, 0.55, 700.0]
    assert list(exported_of_note(None)) == []
