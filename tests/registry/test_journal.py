"""Entries of a journal are complete or absent, and never change."""

import json
import os
import time

import pytest

from rlcar.errors import RegistryError
from rlcar.registry import Registry
from rlcar.registry.journal import Journal
from rlcar.registry.store import CLAIM_FOLDER


@pytest.fixture
def journal(registry):
    return registry.rollouts("champion")


def test_entries_come_back_in_order(registry, journal):
    assert journal.read() == []
    for number in range(3):
        assert journal.append(number, "me", {"kind": number}).number == number + 1
    again = Registry(registry.place).rollouts("champion")
    assert [one.content for one in again.read()] == [{"kind": number} for number in range(3)]
    assert journal.append(2, "me", {}) is None  # decided on a state that is no longer the newest
    assert registry.rollouts("other").read() == []


def test_a_damaged_entry_is_named(registry, journal, tmp_path):
    journal.append(0, "me", {"a": 1})
    path = tmp_path / "models/rollouts/champion/00000001.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree | {"entry": tree["entry"].replace("me", "we")}))
    with pytest.raises(RegistryError, match=r"entry 1 of the journal .*checksum differs.*backup"):
        registry.rollouts("champion").read()


def test_the_number_of_a_writer_that_died_is_skipped(registry, journal, tmp_path):
    journal.append(0, "me", {})
    claim = tmp_path / f"models/rollouts/champion/00000002.json{CLAIM_FOLDER}/claim-1"
    claim.parent.mkdir()
    claim.write_text("claimed\n")
    assert journal.append(1, "me", {}) is None  # it may still be writing
    os.utime(claim, (1.0, 1.0))
    assert journal.append(1, "me", {"after": "the gap"}).number == 3
    # Should the dead writer's entry appear after all, nobody takes it for a part of the journal.
    late = (claim.parent.parent / "00000001.json").read_bytes()
    (claim.parent.parent / "00000002.json").write_bytes(late)
    for reader in (journal, registry.rollouts("champion")):
        assert [one.number for one in reader.read()] == [1, 3]


@pytest.mark.parametrize("wrong_s", [-7200.0, 7200.0])
def test_a_writer_with_a_wrong_clock_judges_claims_by_that_of_the_store(
    journal, tmp_path, monkeypatch, wrong_s
):
    journal.append(0, "me", {})
    claim = tmp_path / f"models/rollouts/champion/00000002.json{CLAIM_FOLDER}/claim-1"
    claim.parent.mkdir()
    claim.write_text("claimed\n")
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + wrong_s)
    assert journal.append(1, "me", {}) is None
    os.utime(claim, (now_s - 100.0, now_s - 100.0))
    assert journal.append(1, "me", {}).number == 3
    assert [one.number for one in journal.read()] == [1, 3]


def test_nothing_is_read_again_while_the_journal_rests(registry, journal, monkeypatch):
    journal.append(0, "me", {"a": 1})
    reader = registry.rollouts("champion")
    entries = reader.read()
    monkeypatch.setattr(Journal, "_in_order", lambda *_: pytest.fail("it reads again"))
    assert reader.read() == entries
    monkeypatch.undo()
    journal.append(1, "me", {"a": 2})
    assert [one.content for one in reader.read()] == [{"a": 1}, {"a": 2}]


def test_a_backup_has_the_journal(registry, journal, run, tmp_path):
    registry.publish(run)
    journal.append(0, "me", {"a": 1})
    registry.backup(tmp_path / "backup")
    copied = Registry(tmp_path / "backup").rollouts("champion").read()
    assert [one.content for one in copied] == [{"a": 1}]
