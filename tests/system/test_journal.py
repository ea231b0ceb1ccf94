"""The append-only journal: what it returns, and which damage it notices."""

import errno
import json
import os

import pytest

from rlcar.errors import UserError
from rlcar.system.journal import DamagedJournalError, Journal


@pytest.fixture
def path(tmp_path):
    """A journal of three entries."""
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(3):
        journal.append({"number": number})
    return journal.path


def test_what_was_appended_is_read_again_in_its_order(path):
    assert [line.content["number"] for line in Journal(path).lines] == [0, 1, 2]
    assert [line.sequence for line in Journal(path).lines] == [1, 2, 3]


@pytest.mark.parametrize("kept", [1, 20, 80])
def test_an_incomplete_last_line_is_dropped_and_replaced(path, kept):
    data = path.read_bytes()
    last = data.rfind(b"\n", 0, -1) + 1
    path.write_bytes(data[: last + kept])
    journal = Journal(path)
    assert [line.content["number"] for line in journal.lines] == [0, 1]
    journal.append({"number": 7})
    assert [line.content["number"] for line in Journal(path).lines] == [0, 1, 7]


def _edited(lines):
    tree = json.loads(lines[1])
    tree["content"]["number"] = 5
    return [lines[0], json.dumps(tree).encode() + b"\n", lines[2]]


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (_edited, 2),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: [lines[1], lines[0], lines[2]], 1),
        (lambda lines: [*lines, lines[-1]], 4),
        (lambda lines: [b"nonsense\n", *lines], 1),
        (lambda lines: [b"[]\n", *lines], 1),
    ],
    ids=["edited", "removed", "moved", "repeated", "not JSON", "another shape"],
)
def test_a_changed_journal_is_refused_with_the_number_of_the_line(path, change, number):
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(DamagedJournalError, match=f"line {number} of the journal"):
        Journal(path)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    journal = Journal(tmp_path / "missing" / "journal.jsonl")
    with pytest.raises(Exception, match="cannot write .*journal.jsonl: No such file"):
        journal.append({})


def test_a_process_that_is_no_longer_the_only_one_leaves_the_lines_of_the_other(path):
    frozen = Journal(path)
    Journal(path).append({"number": 3})
    with pytest.raises(DamagedJournalError, match="another process has changed the journal"):
        frozen.append({"number": 9})
    assert [line.content["number"] for line in Journal(path).lines] == [0, 1, 2, 3]


def test_a_line_that_could_not_be_synced_is_not_kept_and_can_be_written_again(path, monkeypatch):
    journal = Journal(path)

    def refuse(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(UserError, match="cannot write .*journal.jsonl"):
            journal.append({"number": 3})
    journal.append({"number": 4})
    assert [line.content["number"] for line in Journal(path).lines] == [0, 1, 2, 4]
