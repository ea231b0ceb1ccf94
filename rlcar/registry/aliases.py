"""Aliases: names that point at versions, with the history of their values.

Each move is a file of its own, `aliases/champion/00000003-5f0c….json`, and the highest name counts.
A reader finds either the old or the new value, and no process loses a move without knowing it.
"""

import contextlib
import json
import re
import uuid
from datetime import UTC, datetime
from typing import NamedTuple

from rlcar.errors import RegistryError, RegistryUnavailableError
from rlcar.registry.model_file import parse_json
from rlcar.registry.store import Store

ROLLED_BACK = "rolled back"
_DAMAGED = "damaged"
MAX_RECORD_BYTES = 1 << 16
_NAME = re.compile(r"(?!latest$)[a-z][a-z0-9_-]{0,31}")
_RECORD = re.compile(r"(\d{8})-[0-9a-f]{32}\.json")


class AliasRecord(NamedTuple):
    """One value that an alias had."""

    version: int | None  # None: the alias was removed, or the record is damaged
    moved: str  # ISO 8601, UTC
    why: str


class Aliases:
    """Every alias of one registry."""

    def __init__(self, store: Store):
        self._store = store

    def all(self) -> dict[str, int]:
        """Returns the version of every alias."""
        targets = {name: self.target(name) for name in self._names()}
        return {name: number for name, number in targets.items() if number is not None}

    def readable(self) -> dict[str, int]:
        """Returns the version of every alias that can be read now."""
        targets = {}
        with contextlib.suppress(RegistryUnavailableError):
            for name in self._names():
                with contextlib.suppress(RegistryUnavailableError):
                    targets[name] = self.target(name)
        return {name: number for name, number in targets.items() if number is not None}

    def _names(self) -> list[str]:
        return sorted({name.split("/")[0] for name in self._store.names("aliases")})

    def target(self, alias: str) -> int | None:
        """Returns the version of an alias; None for an unknown one."""
        for name in reversed(self._records(alias)):
            record = self._read(alias, name)
            if (
                record.why != _DAMAGED
            ):  # skip damaged records: losing a move is better than losing the alias
                return record.version
        return None

    def history(self, alias: str) -> list[AliasRecord]:
        """Returns every value that an alias has had, the current one last."""
        return [self._read(alias, name) for name in self._records(alias)]

    def before(self, alias: str) -> list[int]:
        """Returns the versions that a rollback may return to, the nearest one first.

        Versions that were rolled back are not among them, so two rollbacks go back two versions.
        """
        past: list[int] = []
        for record in self.history(alias):
            if record.why == ROLLED_BACK and record.version in past:
                del past[past.index(record.version) + 1 :]
            elif record.version is not None and record.version not in past[-1:]:
                past.append(record.version)
        return past[-2::-1]

    def move(self, alias: str, number: int | None, why: str) -> None:
        """Points an alias at a version."""
        check_name(alias)
        moved = datetime.now(UTC).isoformat(timespec="milliseconds")
        data = (json.dumps({"version": number, "moved": moved, "why": why}) + "\n").encode()
        while True:
            last = self._records(alias)[-1:]
            counter = int(last[0][:8]) + 1 if last else 1
            name = f"{counter:08d}-{uuid.uuid4().hex}.json"
            self._store.write(f"aliases/{alias}/{name}", data)
            newest = self._records(alias)[-1]
            # A concurrent move with the same counter may have a higher name; it counts then.
            if newest == name or newest[:8] != name[:8]:
                return

    def _records(self, alias: str) -> list[str]:
        if not _NAME.fullmatch(alias):
            return []
        names = self._store.names(f"aliases/{alias}")
        return sorted(name for name in names if _RECORD.fullmatch(name))

    def _read(self, alias: str, name: str) -> AliasRecord:
        try:
            data = self._store.read(f"aliases/{alias}/{name}", MAX_RECORD_BYTES)
            tree = parse_json(data, "it")
            record = AliasRecord(tree["version"], tree["moved"], tree["why"])
        except RegistryUnavailableError:
            raise  # the record may be sound, so an older one must not replace it
        except (ValueError, KeyError, TypeError, FileNotFoundError, RegistryError):
            return AliasRecord(None, "", _DAMAGED)
        is_whole = isinstance(record.version, int | None) and isinstance(record.why, str)
        return record if is_whole else AliasRecord(None, "", _DAMAGED)


def check_name(alias: str) -> None:
    """Raises RegistryError unless an alias may have this name."""
    if not _NAME.fullmatch(alias):
        raise RegistryError(
            f"{alias[:40]!r} is not a name for an alias: use small letters, digits, - and _"
        )


def is_record(name: str) -> bool:
    """Whether a name is that of a record, such as `champion/00000003-5f0c….json`."""
    alias, _, file = name.partition("/")
    return bool(_NAME.fullmatch(alias) and _RECORD.fullmatch(file))
