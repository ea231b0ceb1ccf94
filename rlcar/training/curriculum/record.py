"""What a curriculum has done, on the disk: a journal of events, and the state that they lead to.

    <folder>/journal.jsonl      one line for each event, chained by checksums
             curriculum.json    the file's content, its fingerprint and the present state
             process.json       who holds the folder

The journal decides. A process that is killed between the two writes leaves a state that is one
event old, which `open_record` repairs.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlcar.errors import UserError, command
from rlcar.runs import stage_note
from rlcar.runs.folders import from_here
from rlcar.settings.files import read_json
from rlcar.system import durable
from rlcar.system.journal import DamagedJournalError, Journal
from rlcar.training.curriculum.machine import (
    Entered,
    Evaluated,
    Event,
    ImpossibleEventError,
    Rechecked,
    Regressed,
    State,
    Trained,
    initial_state,
    next_state,
)
from rlcar.training.curriculum.settings import Curriculum, parse_curriculum

JOURNAL, STATE_FILE = "journal.jsonl", stage_note.CURRICULUM_FILE
_FORMAT_VERSION = 1
_EVENTS = {
    kind.__name__.lower(): kind for kind in (Entered, Trained, Evaluated, Rechecked, Regressed)
}


class Entry(NamedTuple):
    """One event of a curriculum, with the state before it."""

    before: State
    run: tuple[int, int]  # its stage (index) and number: the run that the event is about
    event: Event
    details: dict[str, Any]
    time_s: float


class Record:
    """The journal of one curriculum and its present state."""

    def __init__(
        self, folder: Path, curriculum: Curriculum, require_lease: Callable[[], None] = lambda: None
    ):
        """Reads the journal; raises UserError if it is damaged or of another curriculum.

        `require_lease` is called before each change on the disk, and raises HeldError if another
        process has taken the folder over.
        """
        self.folder, self.curriculum = folder, curriculum
        self._require_lease = require_lease
        self._journal = Journal(folder / JOURNAL)
        self.state = initial_state(curriculum.rules)
        self.entries: list[Entry] = []
        if not self._journal.lines:
            self._require_lease()
            self._journal.append(
                {
                    "event": "begun",
                    "name": curriculum.name,
                    "fingerprint": curriculum.fingerprint,
                    "folder": folder.name,
                }
            )
        began, *lines = self._journal.lines
        if began.content.get("fingerprint") != curriculum.fingerprint:
            raise UserError(
                f"{folder / JOURNAL} is of another curriculum than the present one"
                f"{_difference(began.content.get('name'), curriculum)}: give the curriculum that "
                "it began with, or begin a new one under another --name"
            )
        began_as = began.content.get("folder", folder.name)
        if began_as != folder.name:
            raise UserError(
                f"{folder} began as {began_as}, and the runs of its attempts are named after that: "
                f"rename it back to {began_as}"
            )
        for line in lines:
            event = _event_of(line.content, folder)
            self._apply(event, line.content.get("details", {}), line.time_s)

    def write(self, event: Event, details: Mapping[str, Any]) -> None:
        """Records an event; returns when it is on the disk."""
        next_state(self.curriculum.rules, self.state, event)  # raises before anything is written
        content = {
            "event": type(event).__name__.lower(),
            "fields": event._asdict(),
            "phase": self.state.phase,
            "stage": self.curriculum.stages[self.state.stage].name,
            "attempt": self.state.attempt,
            "details": dict(details),
        }
        self._require_lease()
        line = self._journal.append(content)
        self._apply(event, dict(details), line.time_s)
        self.write_state()

    def write_state(self) -> None:
        """Replaces curriculum.json by the present state."""
        tree = {
            "format_version": _FORMAT_VERSION,
            "name": self.curriculum.name,
            "fingerprint": self.curriculum.fingerprint,
            "curriculum": self.curriculum.model_dump(mode="json"),
            "state": self.state._asdict(),
            "journal_lines": len(self._journal.lines),
            "journal_sha256": self._journal.lines[-1].sha256,
        }
        text = json.dumps({**tree, "sha256": _checksum(tree)}, indent=1, allow_nan=False) + "\n"
        path = self.folder / STATE_FILE
        with durable.explaining_write_errors(path):
            durable.replace_durably(path, text.encode())

    def details_of_run(self, run: tuple[int, int], kind: type[Event]) -> dict[str, Any] | None:
        """Returns the details of the newest event of a kind during a run; None if there is none."""
        found = (
            entry.details
            for entry in reversed(self.entries)
            if isinstance(entry.event, kind) and entry.run == run
        )
        return next(found, None)

    def check_state(self, tree: Mapping[str, Any]) -> None:
        """Raises UserError if a state file does not belong to this journal."""
        lines = tree["journal_lines"]
        is_known = 0 < lines <= len(self._journal.lines)
        if not is_known or self._journal.lines[lines - 1].sha256 != tree["journal_sha256"]:
            raise UserError(
                f"{self.folder / STATE_FILE} does not belong to the journal beside it, which has "
                f"{len(self._journal.lines)} lines: restore both files from the same backup"
            )

    def _apply(self, event: Event, details: dict[str, Any], time_s: float) -> None:
        try:
            after = next_state(self.curriculum.rules, self.state, event)
        except ImpossibleEventError as error:
            raise DamagedJournalError(
                f"the journal {self._journal.path} holds an event that is not possible: {error}"
            ) from error
        run = after.run if isinstance(event, Entered) else self.state.run
        self.entries.append(Entry(self.state, run, event, details, time_s))
        self.state = after


def begin_record(
    folder: Path, curriculum: Curriculum, require_lease: Callable[[], None] = lambda: None
) -> Record:
    """Begins the record of a new curriculum; `require_lease` is as for `Record`."""
    record = Record(folder, curriculum, require_lease)
    record.write_state()
    return record


def require_begun(folder: Path) -> None:
    """Raises UserError for a folder in which no curriculum has begun."""
    if not (folder / STATE_FILE).exists():
        curriculum = stage_note.curriculum_of(folder)
        if curriculum is not None:
            again = command("train", "--mode", "curriculum", "--resume", from_here(curriculum))
            raise UserError(
                f"{folder} is an attempt of the curriculum {curriculum.name}: continue the "
                f"curriculum with: {again}"
            )
        raise UserError(
            f"{folder} holds no curriculum to continue, as there is no {STATE_FILE}: begin one "
            f"with {command('train', '--mode', 'curriculum', '--curriculum', 'FILE')}"
        )


def open_record(
    folder: Path,
    given: Curriculum | None = None,
    require_lease: Callable[[], None] = lambda: None,
) -> Record:
    """Opens the record of a curriculum that has begun.

    `given` is the curriculum that the user named again, and `require_lease` as for `Record`. Raises
    UserError for a state that was edited by hand, is damaged, or is of another curriculum than
    `given`.
    """
    require_begun(folder)
    path = folder / STATE_FILE
    tree = read_json(path)
    stored = tree.pop("sha256", None)
    if stored != _checksum(tree):
        raise UserError(
            f"{path} does not match its checksum, so it was edited by hand or damaged: restore it "
            "from a backup, or begin again under another --name"
        )
    if tree["format_version"] != _FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {tree['format_version']}, and this rlcar reads "
            f"{_FORMAT_VERSION}: continue it with the rlcar that began it"
        )
    if given is not None and given.fingerprint != tree["fingerprint"]:
        raise UserError(
            f"{path} is the state of another curriculum than the one given"
            f"{_difference(tree['name'], given)}: leave --curriculum, --set and --seed out to "
            "continue it, or begin a new one under another --name"
        )
    record = Record(folder, parse_curriculum(tree["curriculum"], str(path)), require_lease)
    record.check_state(tree)
    record.write_state()
    return record


def read_state(folder: Path) -> dict[str, Any] | None:
    """Returns the content of a state file for a reader; None if there is none or it is damaged."""
    try:
        tree = read_json(folder / STATE_FILE)
        stored = tree.pop("sha256")
    except (UserError, KeyError):
        return None
    return tree if stored == _checksum(tree) else None


def run_folder(folder: Path, run: tuple[int, int]) -> Path:
    """Returns the folder of a run of the curriculum in `folder`."""
    stage, number = run
    return folder.with_name(f"{folder.name}-s{stage + 1}-a{number}")


def _difference(began_as: object, given: Curriculum) -> str:
    if began_as == given.name:
        return f" (both are called {given.name}, and their settings differ)"
    return f" ({began_as}, and not {given.name})"


def _event_of(content: Mapping[str, Any], folder: Path) -> Event:
    fields = dict(content.get("fields", {}))
    if "score" in fields:
        fields["score"] = tuple(fields["score"])
    try:
        event: Event = _EVENTS[content["event"]](**fields)
    except (KeyError, TypeError) as error:
        raise DamagedJournalError(
            f"the journal {folder / JOURNAL} holds an unknown event {content.get('event')!r}: "
            "continue the curriculum with the rlcar that wrote it"
        ) from error
    return event


def _checksum(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
