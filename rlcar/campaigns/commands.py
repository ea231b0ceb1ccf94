"""What users ask of a campaign from another terminal: one file for each command.

    <runs>/_campaign/commands/00001733000000000000000-1f2e.json     {"verb": "slots", "slots": 3}

A command exists completely or not at all. The campaign carries it out, notes its name in the
journal and deletes the file, so a command is carried out once even if the campaign dies in between.
"""

import contextlib
import json
import secrets
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from rlcar.system.durable import create_durably, explaining_write_errors
from rlcar.system.process_state import parse

Verb = Literal["pause", "resume", "slots", "retry"]
_FOLDER = "commands"
MOST_SLOTS = 65_536


class Command(NamedTuple):
    """What a user asks for."""

    verb: Verb
    job: str = ""  # of retry
    slots: int | None = None
    name: str = ""  # of its file


def give(folder: Path, command: Command) -> str:
    """Writes a command into the folder of a campaign; returns its name."""
    place = folder / _FOLDER
    name = f"{time.time_ns():023d}-{secrets.token_hex(2)}"
    tree = {key: value for key, value in command._asdict().items() if value not in (None, "")}
    with explaining_write_errors(place):
        place.mkdir(exist_ok=True)
        create_durably(place / f"{name}.json", (json.dumps(tree) + "\n").encode())
    return name


def waiting(folder: Path) -> list[Command]:
    """Returns the commands that were not carried out yet, in their order."""
    found = []
    for path in sorted((folder / _FOLDER).glob("*.json")):
        command = _command(parse(path), path.stem)
        if command is None:
            drop(folder, path.stem)  # not one of ours
        else:
            found.append(command)
    return found


def is_waiting(folder: Path, name: str) -> bool:
    """Whether a command was not carried out yet."""
    return (folder / _FOLDER / f"{name}.json").exists()


def drop(folder: Path, name: str) -> None:
    """Deletes a command."""
    with contextlib.suppress(OSError):
        (folder / _FOLDER / f"{name}.json").unlink(missing_ok=True)


def _command(tree: dict[str, Any], name: str) -> Command | None:
    verb, slots = str(tree.get("verb")), tree.get("slots")
    if verb not in get_args(Verb):
        return None
    if verb == "slots" and not (isinstance(slots, int) and 1 <= slots <= MOST_SLOTS):
        return None
    return Command(cast(Verb, verb), str(tree.get("job", "")), slots, name)
