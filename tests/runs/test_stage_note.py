"""The note that says which attempt of a curriculum a run is, and who shows it."""

import json
import os

import pytest
from prometheus_client import CollectorRegistry

from rlcar.cli.monitor import Snapshot, picture
from rlcar.config import make_config
from rlcar.errors import UserError
from rlcar.runs import stage_note
from rlcar.runs.collector import RunsCollector
from rlcar.runs.exported import exported_of_note
from rlcar.runs.folders import find_save, refuse_attempt, require_run
from rlcar.runs.monitor import RunReader
from rlcar.runs.run import Run
from rlcar.runs.stage_note import StageNote
from rlcar.system.console import make_console
from rlcar.training.curriculum.record import require_begun
from serve.live.run_follower import RunFollower
from tests.runs.test_run import make_run

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


@pytest.fixture
def attempt(tmp_path):
    """An attempt of the curriculum `tour`, newer than the run `alone` beside it."""
    (alone,) = make_run(tmp_path / "alone", 256)
    os.utime(alone.path, (1, 1))
    make_run(tmp_path / "tour-s2-a3", 256)
    stage_note.write(tmp_path / "tour-s2-a3", NOTE)
    (tmp_path / "tour").mkdir()
    (tmp_path / "tour" / stage_note.CURRICULUM_FILE).write_text("{}")
    return tmp_path / "tour-s2-a3"


def test_auto_never_continues_an_attempt_of_a_curriculum(attempt):
    save = find_save(attempt.parent, "auto", None)
    assert save.path.parent.parent.name == "alone"
    refuse_attempt(attempt.parent, "auto", None)


@pytest.mark.parametrize("what", ["", "checkpoints/step-000000256"])
def test_an_attempt_that_is_named_is_left_to_its_curriculum_in_one_sentence(attempt, what):
    sentence = (
        "is an attempt of the curriculum tour, which decides how it goes on: continue the "
        "curriculum with: rlcar train --mode curriculum --resume .*/tour; or train on from its "
        "policy in a new run with: rlcar train --from .*/tour-s2-a3$"
    )
    with pytest.raises(UserError, match=sentence):
        refuse_attempt(attempt.parent, str(attempt / what), None)
    with pytest.raises(UserError, match=sentence):
        refuse_attempt(attempt.parent, "auto", attempt.name)
    with pytest.raises(UserError, match="is an attempt of the curriculum tour: continue the"):
        require_begun(attempt)
    with pytest.raises(UserError, match=r"tour is a curriculum and not a run: .* tour-s1-a1"):
        require_run(attempt.with_name("tour"))


def test_an_attempt_whose_curriculum_is_gone_is_an_ordinary_run(attempt):
    (attempt.with_name("tour") / stage_note.CURRICULUM_FILE).unlink()
    refuse_attempt(attempt.parent, str(attempt), None)
    stage_note.write(attempt, NOTE._replace(curriculum="../tour"))
    assert stage_note.curriculum_of(attempt) is None


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
