"""Immutable numbered versions of models, and aliases that point at them.

versions/00000007/policy.safetensors     what acting needs, and nothing more
                  report.json            the evaluation, where there was one
                  manifest.json          written last: metadata, checksums
                  deleted.json           in place of all those, once it was deleted
aliases/champion/00000003-5f0c….json     its third value; the highest name counts
"""

import json
import random
import re
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlcar.errors import RegistryError
from rlcar.registry.architecture import check_arrays
from rlcar.registry.exchange import exported_bytes, imported
from rlcar.registry.metadata import check_metadata
from rlcar.registry.model_file import model_bytes, parse_json, parse_model
from rlcar.registry.store import LocalStore, Store, open_store
from rlcar.registry.version import Model, Version, manifest_bytes, parse_manifest, sha256

MODELS = Path("models")
_POLICY, _MANIFEST, _DELETED = "policy.safetensors", "manifest.json", "deleted.json"
_ROLLED_BACK = "rolled back"
_ALIAS = re.compile(r"(?!latest$)[a-z][a-z0-9_-]{0,31}")
_RECORD = re.compile(r"(\d{8})-[0-9a-f]{32}\.json")
_FOLDER = re.compile(r"\d{8}")


class AliasRecord(NamedTuple):
    """One value that an alias had."""

    version: int | None  # None: it was taken away
    moved: str  # ISO 8601, UTC
    why: str


class Registry:
    """Reads and writes versions; any number of processes may do so at once.

    Numbers are never given twice, not even after a deletion; on an object store some may stay
    unused. A reader sees a version whole or not at all, and an alias with its old value or its new.
    """

    def __init__(self, location: str | Path = MODELS):
        self._store: Store = open_store(location)
        self.place = self._store.place  # as messages name it, without any secret of a URL
        self._known: dict[int, Version] = {}  # manifests never change

    def versions(self) -> list[Version]:
        """Lists every version, newest first; those whose manifest is damaged are left out."""
        aliases = self.aliases()
        found = []
        for number in self._numbers():
            try:
                found.append(self._version(number, aliases))
            except RegistryError:
                continue
        return found

    def version(self, name: str | int) -> Version:
        """Returns the version of a name (see `resolve`); raises RegistryError if damaged."""
        return self._version(self.resolve(name), self.aliases())

    def resolve(self, name: str | int) -> int:
        """Returns the number that an alias, `latest` or a number in digits means."""
        text = str(name)
        if text.isascii() and text.isdecimal() and len(text) < 9:
            number = int(text)
            if not self._is_there(number):
                raise RegistryError(f"there is no version {number} in {self.place}{self._hint()}")
            return number
        if text == "latest":
            numbers = self._numbers()
            if not numbers:
                raise RegistryError(f"{self.place} holds no version yet: publish one")
            return numbers[0]
        target = self._target(text)
        if target is None:
            raise RegistryError(f"there is no alias {text!r} in {self.place}{self._hint()}")
        return target

    def aliases(self) -> dict[str, int]:
        """Returns what every alias points at now."""
        names = {name.split("/")[0] for name in self._store.names("aliases")}
        targets = {name: self._target(name) for name in sorted(names)}
        return {name: number for name, number in targets.items() if number is not None}

    def history(self, alias: str) -> list[AliasRecord]:
        """Returns every value that an alias has had, the present one last."""
        return [self._record(alias, name) for name in self._records(alias)]

    def open(self, name: str | int) -> Model:
        """Reads a version; raises RegistryError unless every byte is what was published."""
        version = self.version(name)
        for file, known in version.files.items():
            data = self._read(version.number, file)
            if sha256(data) != known["sha256"]:
                raise RegistryError(
                    f"version {version.number} is damaged ({file}: checksum differs); "
                    "roll back, or publish it again"
                )
            if file == _POLICY:
                arrays, _ = parse_model(data, f"version {version.number}")
        check_arrays(version.metadata["config"], arrays, f"version {version.number}")
        return Model(version, arrays)

    def open_good(self, name: str | int = "champion") -> tuple[Model, list[str]]:
        """Reads a version or, where that is damaged, the one before it that is sound.

        First the alias's earlier values are tried, then all versions, newest first. Returns also a
        sentence for each that was passed over; raises RegistryError when nothing is left.
        """
        wanted: list[int] = []
        problems: list[str] = []
        text = str(name)
        if _ALIAS.fullmatch(text):
            records = self.history(text)
            wanted += [one.version for one in reversed(records) if one.version is not None]
        else:
            wanted.append(self.resolve(text))
        if not wanted:
            self.resolve(text)
        for number in dict.fromkeys([*wanted, *self._numbers()]):
            try:
                return self.open(number), problems
            except RegistryError as error:
                problems.append(str(error))
        raise RegistryError(f"no version of {self.place} can be read: {problems[0]}")

    def publish(self, run_or_checkpoint: Path | str, description: str = "") -> Version:
        """Publishes a run's best policy, or the checkpoint that the path names."""
        from rlcar.registry.from_run import content_of_run

        arrays, metadata, report = content_of_run(Path(run_or_checkpoint), description)
        return self.add(arrays, metadata, report)

    def add(
        self,
        arrays: Mapping[str, np.ndarray],
        metadata: Mapping[str, Any],
        report: Mapping[str, Any] | None = None,
    ) -> Version:
        """Publishes arrays as a new version; the metadata is as `Metadata` says.

        Raises RegistryError unless the arrays are those that the config in it asks for.
        """
        metadata = check_metadata(metadata, "the model")
        check_arrays(metadata["config"], arrays, "the model")
        contents = {_POLICY: model_bytes(arrays)}
        if report is not None:
            contents["report.json"] = (json.dumps(report, allow_nan=False) + "\n").encode()
        files = {
            name: {"sha256": sha256(data), "size_bytes": len(data)}
            for name, data in contents.items()
        }
        lineage = {**metadata["lineage"], "parent": self._parent(metadata["lineage"])}
        number = self._claim_number()
        version = Version(number, _now(), {**metadata, "lineage": lineage}, files)
        for name, data in contents.items():
            self._store.write(f"{_folder(number)}/{name}", data)
        self._store.write(f"{_folder(number)}/{_MANIFEST}", manifest_bytes(version))
        return version

    def export(self, name: str | int, path: Path | str) -> Path:
        """Writes a version as one safetensors file, whole or not at all; returns its path."""
        model, path = self.open(name), Path(path)
        has_report = "report.json" in model.version.files
        report = self._read(model.version.number, "report.json") if has_report else None
        LocalStore(path.parent).write(path.name, exported_bytes(model, report))
        return path

    def import_(self, path: Path | str, description: str = "") -> Version:
        """Publishes an exported file, or a legacy pickle (ending .pkl, .pickle or .p).

        Raises RegistryError for anything else; nothing in the file is ever executed.
        """
        return self.add(*imported(Path(path), description))

    def promote(self, name: str | int, alias: str = "champion") -> Version:
        """Lets an alias point at a version, which must be sound."""
        version = self.open(name).version
        self._move(alias, version.number, "promoted")
        if not self._is_there(version.number):  # deleted meanwhile
            former = self.history(alias)[-2:-1]
            self._move(alias, former[0].version if former else None, "promotion failed")
            raise RegistryError(f"version {version.number} was deleted: {alias} stays as it was")
        return self.version(version.number)

    def rollback(self, alias: str = "champion") -> Version:
        """Lets an alias point at its value before the present one again.

        Twice goes back two values: what was rolled back from is not returned to.
        """
        past: list[int] = []
        for record in self.history(alias):
            if record.why == _ROLLED_BACK and record.version in past:
                del past[past.index(record.version) + 1 :]
            elif record.version is not None and record.version not in past[-1:]:
                past.append(record.version)
        for number in reversed(past[:-1]):
            try:
                self.open(number)
            except RegistryError:
                continue  # deleted or damaged
            self._move(alias, number, _ROLLED_BACK)
            return self.version(number)
        raise RegistryError(f"alias {alias!r} has no earlier version to roll back to")

    def diff(self, one: str | int, other: str | int) -> dict[str, tuple[Any, Any]]:
        """Returns the metadata that differ, by dotted name, in both versions."""
        first, second = (_flat(self.version(name).metadata) for name in (one, other))
        names = sorted(first.keys() | second.keys())
        pairs = {name: (first.get(name), second.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def delete(self, name: str | int) -> None:
        """Deletes a version for good; raises RegistryError while an alias points at it."""
        number = self.resolve(name)
        self._refuse_aliased(number)
        stone = f"{_folder(number)}/{_DELETED}"
        self._store.write(stone, (json.dumps({"deleted": _now()}) + "\n").encode())
        try:
            self._refuse_aliased(number)  # promoted meanwhile
        except RegistryError:
            self._store.delete(stone)
            raise
        for file in self._store.names(_folder(number)):
            if file != _DELETED:
                self._store.delete(f"{_folder(number)}/{file}")

    def retain(self, days: float = 90.0, newest: int = 1, dry_run: bool = False) -> list[int]:
        """Deletes versions older than so many days; returns their numbers.

        Those with an alias, those that an alias can be rolled back to once, and the newest ones
        stay.
        """
        if newest < 1 or not 0 <= days < 1e6:
            raise RegistryError(f"retention of {days} days and {newest} newest: both are too few")
        kept = {number for number in self.aliases().values()}
        for alias in self.aliases():
            kept |= {one.version for one in self.history(alias)[-2:] if one.version is not None}
        limit = datetime.now(UTC) - timedelta(days=days)
        old = [
            one.number
            for one in self.versions()[newest:]
            if one.number not in kept and datetime.fromisoformat(one.created) < limit
        ]
        for number in old if not dry_run else []:
            self.delete(number)
        return old

    def _claim_number(self) -> int:
        number = 0
        for attempt in range(100):
            # One that is claimed may hold no file yet, so each attempt is above the one before.
            number = max([number, *(int(name[:8]) for name in self._all_names())]) + 1
            if self._store.claim(_folder(number)):
                return number
            time.sleep(random.uniform(0.0, 0.05 * min(attempt, 20)))
        raise RegistryError(f"{self.place}: no number for a new version in 100 attempts")

    def _move(self, alias: str, number: int | None, why: str) -> None:
        if not _ALIAS.fullmatch(alias):
            raise RegistryError(
                f"{alias[:40]!r} is no name for an alias: use small letters, digits, - and _"
            )
        record = {"version": number, "moved": _now(), "why": why}
        while True:
            last = self._records(alias)[-1:]
            counter = int(last[0][:8]) + 1 if last else 1
            name = f"{counter:08d}-{uuid.uuid4().hex}.json"
            self._store.write(f"aliases/{alias}/{name}", (json.dumps(record) + "\n").encode())
            newest = self._records(alias)[-1]
            # Another's move of the same count may stand above this one, which is then void.
            if newest == name or newest[:8] != name[:8]:
                return

    def _target(self, alias: str) -> int | None:
        newest = self._records(alias)[-1:]
        return self._record(alias, newest[0]).version if newest else None

    def _records(self, alias: str) -> list[str]:
        if not _ALIAS.fullmatch(alias):
            return []
        return sorted(n for n in self._store.names(f"aliases/{alias}") if _RECORD.fullmatch(n))

    def _record(self, alias: str, name: str) -> AliasRecord:
        try:
            tree = parse_json(self._store.read(f"aliases/{alias}/{name}"), f"alias {alias!r}")
            return AliasRecord(tree["version"], tree["moved"], tree["why"])
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise RegistryError(f"alias {alias!r} is damaged ({name}): {error}") from None

    def _all_names(self) -> list[str]:
        names = self._store.names("versions")
        return [name for name in names if _FOLDER.fullmatch(name.split("/")[0])]

    def _numbers(self) -> list[int]:
        """Numbers of complete, undeleted versions, newest first."""
        names = self._all_names()
        whole = {int(name[:8]) for name in names if name[8:] == f"/{_MANIFEST}"}
        gone = {int(name[:8]) for name in names if name[8:] == f"/{_DELETED}"}
        return sorted(whole - gone, reverse=True)

    def _is_there(self, number: int) -> bool:
        names = self._store.names(_folder(number))
        return _MANIFEST in names and _DELETED not in names

    def _version(self, number: int, aliases: Mapping[str, int]) -> Version:
        if number not in self._known:
            self._known[number] = parse_manifest(self._read(number, _MANIFEST), number)
        own = tuple(alias for alias, target in aliases.items() if target == number)
        return self._known[number]._replace(aliases=own)

    def _read(self, number: int, file: str) -> bytes:
        try:
            return self._store.read(f"{_folder(number)}/{file}")
        except FileNotFoundError:
            raise RegistryError(f"version {number} is damaged: it has no {file}") from None

    def _parent(self, lineage: Mapping[str, Any]) -> int | None:
        """The newest version of the same run."""
        for one in self.versions():
            if lineage.get("run") and one.metadata["lineage"].get("run") == lineage["run"]:
                return one.number
        return None

    def _refuse_aliased(self, number: int) -> None:
        names = [alias for alias, target in self.aliases().items() if target == number]
        if names:
            raise RegistryError(
                f"version {number} is {', '.join(names)}: promote another one before deleting it"
            )

    def _hint(self) -> str:
        numbers = [str(number) for number in self._numbers()[:5]]
        names = [*self.aliases(), *numbers]
        return f"; there are: {', '.join(names)}" if names else ", which is empty: publish one"


def _folder(number: int) -> str:
    return f"versions/{number:08d}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found
