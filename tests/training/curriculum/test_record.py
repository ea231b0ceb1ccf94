"""The journal and the state file: what survives a kill, and what is refused."""

import json

import pytest

from rlcar.errors import UserError
from rlcar.system.lease import HeldError
from rlcar.training.curriculum import record as record_module
from rlcar.training.curriculum.machine import Entered, Evaluated, Phase, Trained
from rlcar.training.curriculum.record import begin_record, open_record, read_state
from tests.support.tiny_curriculum import curriculum, stage

MADE = curriculum(stage("a"), stage("b"))


@pytest.fixture
def folder(tmp_path):
    """The record of a curriculum in the second confirmation of its first stage."""
    record = begin_record(tmp_path, MADE)
    record.write(Entered(), {})
    record.write(Trained(is_over=False), {"env_steps": 512})
    record.write(Evaluated(False, (0.25, -1.5)), {"success_rate": 0.25})
    record.write(Trained(is_over=True), {"env_steps": 1024})
    return tmp_path


def test_a_record_is_read_as_it_was_written(folder):
    opened = open_record(folder)
    assert opened.curriculum == MADE
    assert opened.state.phase is Phase.EVALUATE
    assert (opened.state.confirmations, opened.state.is_over) == (1, True)
    assert opened.details_of_run((0, 1), Trained) == {"env_steps": 1024}
    assert read_state(folder)["state"]["runs"] == [1, 0]


def test_a_kill_between_journal_and_state_loses_nothing(folder, monkeypatch):
    before = (folder / "curriculum.json").read_bytes()
    open_record(folder).write(Evaluated(True, (1.0, 2.0)), {})
    (folder / "curriculum.json").write_bytes(before)  # as if its rewriting had not happened
    assert open_record(folder).state.phase is Phase.ADVANCE
    assert read_state(folder)["state"]["phase"] == "advance"  # repaired


def test_an_event_that_is_impossible_is_not_written(folder):
    record = open_record(folder)
    before = (folder / "journal.jsonl").read_bytes()
    with pytest.raises(ValueError, match="cannot follow"):
        record.write(Entered(), {})
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_state_that_was_edited_by_hand_is_refused(folder):
    path = folder / "curriculum.json"
    tree = json.loads(path.read_text())
    tree["state"]["stage"] = 1
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="does not match its checksum, so it was edited by hand"):
        open_record(folder)
    assert read_state(folder) is None


def test_a_journal_that_was_edited_by_hand_is_refused(folder):
    path = folder / "journal.jsonl"
    path.write_text(path.read_text().replace('"env_steps": 512', '"env_steps": 513'))
    with pytest.raises(UserError, match="line 3 of the journal .* edited or damaged"):
        open_record(folder)


def test_the_state_of_another_curriculum_is_refused(folder):
    other = curriculum(stage("a"), stage("b", attempts=3))
    said = "is the state of another curriculum than the one given .both are called reaching, and"
    with pytest.raises(UserError, match=said):
        open_record(folder, other)
    with pytest.raises(UserError, match="than the one given .reaching, and not flying."):
        open_record(folder, curriculum(stage("a"), stage("b"), name="flying"))
    assert open_record(folder, MADE).state.phase is Phase.EVALUATE


def test_a_state_without_the_end_of_its_journal_is_refused(folder):
    path = folder / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))
    with pytest.raises(UserError, match="does not belong to the journal beside it"):
        open_record(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense", '{"sha256": "0"}'])
def test_a_damaged_state_is_one_sentence(folder, content):
    (folder / "curriculum.json").write_text(content)
    with pytest.raises(UserError):
        open_record(folder)


def test_a_folder_without_a_curriculum_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no curriculum to continue"):
        open_record(tmp_path)


def test_a_state_of_a_later_version_is_refused(folder, monkeypatch):
    monkeypatch.setattr(record_module, "_FORMAT_VERSION", 2)
    open_record_again = record_module.open_record
    with pytest.raises(UserError, match="has format version 1, and this rlcar reads 2"):
        open_record_again(folder)


def test_a_process_that_has_lost_the_folder_writes_nothing(folder):
    def refuse():
        raise HeldError("taken over")

    frozen = open_record(folder)
    frozen._require_lease = refuse
    before = (folder / "journal.jsonl").read_bytes()
    with pytest.raises(HeldError):
        frozen.write(Evaluated(True, (1.0, 2.0)), {})
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_folder_that_was_renamed_is_refused_because_its_runs_have_the_old_name(tmp_path):
    (tmp_path / "old").mkdir()
    begin_record(tmp_path / "old", MADE)
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(UserError, match="new began as old, .*: rename it back to old"):
        open_record(tmp_path / "new")
