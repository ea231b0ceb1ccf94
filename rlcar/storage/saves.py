"""Finds the saves of a folder, without JAX; `rlcar.storage.checkpoint` writes and reads them."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from rlcar.system.regular_file import read_regular

SAVING = ".saving-"
REPLACED = ".replaced-"  # the previous save of the same env_steps, until the new one is in place
DELETED = ".deleted-"
STEP_NAME = re.compile(r"step-(\d{9,})")


class Save(NamedTuple):
    """A complete save on disk; `meta` is empty if meta.json cannot be read."""

    path: Path
    env_steps: int
    meta: dict[str, Any]


def saves(folder: Path) -> list[Save]:
    """Lists the complete saves, oldest first."""
    found = {}
    if Path(folder).is_dir():
        for name in {path.name.removeprefix(REPLACED) for path in Path(folder).iterdir()}:
            save = find(Path(folder), name)
            if save is not None:
                found[save.env_steps] = save
    return [found[env_steps] for env_steps in sorted(found)]


def is_save_name(name: str) -> bool:
    """Whether a folder of that name is a save, if it is complete."""
    return STEP_NAME.fullmatch(name) is not None


def needs(save: Save) -> list[str]:
    """Returns the names of the other saves that this one builds on."""
    return list(save.meta.get("needs") or [])


def find(folder: Path, name: str) -> Save | None:
    """Returns the complete save of that name, even while it is being replaced."""
    match = STEP_NAME.fullmatch(name)
    if match is None:
        return None
    for path in (folder / name, folder / (REPLACED + name)):
        if (path / "DONE").is_file():
            try:
                meta = json.loads(read_regular(path / "meta.json"))
            except (OSError, ValueError):
                meta = {}
            return Save(path, int(match[1]), meta if isinstance(meta, dict) else {})
    return None
