"""Immutable numbered versions of models, and aliases that point at them.

versions/00000007/policy.safetensors     only what acting needs
                  report.json            the evaluation, if there is one
                  manifest.json          written last: metadata, checksums
                  deleted.json           replaces all these after a deletion
aliases/champion/00000003-5f0c….json     its third value; the highest name counts
rollouts/champion/00000007.json          an entry of the journal of its rollouts
"""

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rlcar.errors import MissingAliasError, RegistryError, RegistryUnavailableError
from rlcar.registry.aliases import ROLLED_BACK, Aliases, AliasRecord
from rlcar.registry.architecture import check_arrays
from rlcar.registry.backup import Copied, copy_registry
from rlcar.registry.deadline import DEADLINE_S, DeadlineStore
from rlcar.registry.difference import difference
from rlcar.registry.exchange import exported_bytes, imported
from rlcar.registry.journal import Journal
from rlcar.registry.leftovers import remove_leftovers
from rlcar.registry.metadata import check_metadata
from rlcar.registry.model_file import model_bytes, parse_model
from rlcar.registry.retention import expired
from rlcar.registry.shared_counts import SharedCounts
from rlcar.registry.store import UNREADABLE, LocalStore, Store, open_store
from rlcar.registry.version import (
    DELETED,
    LIMITS_BYTES,
    MANIFEST,
    MAX_NUMBER,
    POLICY,
    REPORT,
    Model,
    Version,
    folder_of,
    manifest_bytes,
    number_of,
    parse_manifest,
    read_version_file,
    sha256,
)


class Registry:
    """Reads and writes versions; any number of processes may do so at once.

    A number is never used twice, not even after a deletion; on an object store some may stay
    unused. A reader sees a version completely or not at all, and an alias with its old or its new
    value.
    """

    def __init__(self, location: str | Path = "models", deadline_s: float = DEADLINE_S):
        """`deadline_s` is how long the folder or object store may take for a small request."""
        self._deadline_s = deadline_s
        self._store: Store = self._opened(location)
        self.place = self._store.place  # for messages, without secrets of a URL
        self._aliases = Aliases(self._store)
        self._known: dict[int, Version] = {}  # manifests never change

    def versions(self) -> list[Version]:
        """Lists every version, newest first; those whose manifest is damaged are left out.

        An unreadable alias is left out too, whereas `aliases` raises RegistryError for it.
        """
        aliases = self._aliases.readable()
        found = []
        for number in self.numbers():
            try:
                found.append(self._version(number, aliases))
            except RegistryError:
                continue
        return found

    def damaged(self) -> dict[int, str]:
        """Returns the versions that `versions` leaves out, with the reasons."""
        problems = {}
        for number in self.numbers():
            try:
                self._version(number, {})
            except RegistryError as error:
                problems[number] = str(error)
        return problems

    def version(self, name: str | int) -> Version:
        """Returns the version of a name (see `resolve`); raises RegistryError if it is damaged."""
        return self._version(self.resolve(name), self._aliases.readable())

    def resolve(self, name: str | int) -> int:
        """Returns the number that an alias, `latest` or a number in digits means."""
        text = str(name)
        if text.isascii() and text.isdecimal() and len(text) < 9:
            number = int(text)
            if not self._is_there(number):
                raise RegistryError(f"there is no version {number} in {self.place}{self._hint()}")
            return number
        if text == "latest":
            numbers = self.numbers()
            if not numbers:
                raise RegistryError(f"{self.place} holds no version yet: publish one")
            return numbers[0]
        target = self._aliases.target(text)
        if target is None:
            raise MissingAliasError(f"there is no alias {text!r} in {self.place}{self._hint()}")
        return target

    def aliases(self) -> dict[str, int]:
        """Returns the version of every alias."""
        return self._aliases.all()

    def history(self, alias: str) -> list[AliasRecord]:
        """Returns every value that an alias has had, the current one last."""
        return self._aliases.history(alias)

    def rollouts(self, alias: str) -> Journal:
        """Returns the journal of an alias's rollouts; see `serve.delivery`."""
        return Journal(self._store, alias)

    def rollout_counts(self, alias: str, rollout: str) -> SharedCounts:
        """Returns what servers have counted about a rollout."""
        return SharedCounts(self._store, alias, rollout)

    def open(self, name: str | int) -> Model:
        """Reads a version; raises RegistryError unless every byte is as it was published."""
        version = self.version(name)
        for file in version.files:
            data = read_version_file(self._store, version, file)
            if file == POLICY:
                arrays, _ = parse_model(data, f"version {version.number}")
        check_arrays(version.metadata, arrays, f"version {version.number}")
        return Model(version, arrays)

    def open_good(self, name: str | int = "champion") -> tuple[Model, list[str]]:
        """Reads a version or, if it is damaged, an undamaged one in its place.

        The earlier values of the alias are tried first, then all versions, newest first. Also
        returns a sentence about each damaged one; raises RegistryError if none is left.
        """
        problems: list[str] = []
        first = self.resolve(name)
        for number in dict.fromkeys([first, *self._aliases.before(str(name)), *self.numbers()]):
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
        *,
        parent: int | None = None,
    ) -> Version:
        """Publishes arrays as a new version; `metadata` has the fields of `Metadata`.

        `parent` is the version that it follows (default: the newest one of the same run). Raises
        RegistryError unless the arrays are those that the config in it requires.
        """
        metadata = check_metadata(metadata, "the model")
        check_arrays(metadata, arrays, "the model")
        contents = {POLICY: model_bytes(arrays)}
        if report is not None:
            contents[REPORT] = (json.dumps(report, allow_nan=False) + "\n").encode()
        for name, data in contents.items():
            if len(data) > LIMITS_BYTES[name]:
                raise RegistryError(
                    f"{name} would have {len(data)} bytes, more than the {LIMITS_BYTES[name]} "
                    "allowed"
                )
        files = {
            name: {"sha256": sha256(data), "bytes": len(data)} for name, data in contents.items()
        }
        lineage = {**metadata["lineage"], "parent": parent or self._parent(metadata["lineage"])}
        number = self._claim_number()
        version = Version(number, _now(), {**metadata, "lineage": lineage}, files)
        self._write_version(version, contents)
        with contextlib.suppress(RegistryError):  # the next publication tries again
            remove_leftovers(self._store)
        return version

    def report(self, version: Version) -> bytes | None:
        """Reads the evaluation of a version as JSON, if it has one."""
        return read_version_file(self._store, version, REPORT) if REPORT in version.files else None

    def export(self, name: str | int, path: Path | str) -> Path:
        """Writes a version as one safetensors file, completely or not at all; returns its path."""
        model, path = self.open(name), Path(path)
        LocalStore(path.parent).write(path.name, exported_bytes(model, self.report(model.version)))
        return path

    def import_(self, path: Path | str, description: str = "") -> Version:
        """Publishes an exported file, or a legacy pickle (ending .pkl, .pickle or .p).

        Raises RegistryError for anything else; nothing in the file is ever executed.
        """
        return self.add(*imported(Path(path), description))

    def promote(
        self,
        name: str | int,
        alias: str = "champion",
        trial: Callable[[Model], None] | None = None,
        why: str = "promoted",
    ) -> Version:
        """Points an alias at a version, which must be undamaged.

        `trial` raises RegistryError for a model that must not be promoted; see
        `serve.policy.policy.try_model`. `why` stands in the alias's history.
        """
        model = self.open(name)
        if trial is not None:
            trial(model)
        version = model.version
        self._aliases.move(alias, version.number, why)
        if not self._is_there(version.number):  # deleted meanwhile
            former = self.history(alias)[-2:-1]
            self._aliases.move(alias, former[0].version if former else None, "promotion failed")
            raise RegistryError(f"version {version.number} was deleted: {alias} stays as it was")
        return self.version(version.number)

    def rollback(
        self, alias: str = "champion", trial: Callable[[Model], None] | None = None
    ) -> Version:
        """Points an alias at its previous value again.

        Calling it twice goes back two values. Versions that are deleted, damaged or refused by
        `trial` are skipped.
        """
        for number in self._aliases.before(alias):
            try:
                model = self.open(number)
                if trial is not None:
                    trial(model)
            except RegistryUnavailableError:
                raise
            except RegistryError:
                continue
            self._aliases.move(alias, number, ROLLED_BACK)
            return self.version(number)
        raise RegistryError(f"alias {alias!r} has no earlier version to roll back to")

    def diff(self, one: str | int, other: str | int) -> dict[str, tuple[Any, Any]]:
        """Returns the metadata that differ, by dotted name, with the values of both versions."""
        return difference(self.version(one), self.version(other))

    def delete(self, name: str | int) -> None:
        """Deletes a version permanently; raises RegistryError while an alias points at it."""
        number = self.resolve(name)
        self._refuse_aliased(number)
        marker = f"{folder_of(number)}/{DELETED}"
        self._store.write(marker, (json.dumps({"deleted": _now()}) + "\n").encode())
        try:
            self._refuse_aliased(number)  # promoted meanwhile
        except RegistryError:
            self._store.delete(marker)
            raise
        for file in self._store.names(folder_of(number)):
            if file != DELETED:
                self._store.delete(f"{folder_of(number)}/{file}")

    def retain(self, days: float = 90.0, newest: int = 1, dry_run: bool = False) -> list[int]:
        """Deletes versions older than `days`; returns their numbers.

        Versions with an alias, the previous value of each alias, the version that a rollback would
        return to, and the newest versions are kept.
        """
        there, kept = set(self.numbers()), set(self.aliases().values())
        for alias in self.aliases():
            kept |= {
                record.version for record in self.history(alias)[-2:] if record.version is not None
            }
            # After a rollback, this is an older one than the last two values.
            past = [number for number in self._aliases.before(alias) if number in there]
            kept |= set(past[:1])
        old = expired(self.versions(), kept, days, newest)
        for number in old if not dry_run else []:
            self.delete(number)
        if not dry_run:
            remove_leftovers(self._store)
        return old

    def backup(self, location: str | Path) -> Copied:
        """Copies what a backup lacks into it; see `copy_registry`."""
        return copy_registry(self._store, self._opened(location))

    def restore(self, location: str | Path) -> Copied:
        """Copies what this registry lacks from a backup."""
        return copy_registry(self._opened(location), self._store)

    def _opened(self, location: str | Path) -> Store:
        return DeadlineStore(open_store(location), self._deadline_s)

    def _write_version(self, version: Version, contents: Mapping[str, bytes]) -> None:
        """Writes the files, the manifest last; removes them if one cannot be written.

        They stay after Ctrl-C and if the store does not answer, as a write may still take effect.
        """
        folder = folder_of(version.number)
        try:
            for name, data in contents.items():
                self._store.write(f"{folder}/{name}", data)
            self._store.write(f"{folder}/{MANIFEST}", manifest_bytes(version))
        except RegistryUnavailableError:
            raise
        except RegistryError:
            with contextlib.suppress(RegistryError):
                for name in (MANIFEST, *contents):
                    self._store.delete(f"{folder}/{name}")
                self._store.release(folder)
            raise

    def _claim_number(self) -> int:
        """Claims the next free number above every readable version.

        A folder without a complete version is skipped; the numbers around it may still be free.
        """
        for attempt in range(100):
            newest = max((version.number for version in self._readable()), default=0)
            taken = set(self._store.folders("versions"))
            numbers = range(newest + 1, MAX_NUMBER + 1)
            free = next((number for number in numbers if f"{number:08d}" not in taken), None)
            if free is None:
                raise RegistryError(f"{self.place} has no number left above version {newest}")
            if self._store.claim(folder_of(free)):
                return free
            time.sleep(random.uniform(0.0, 0.05 * min(attempt, 20)))
        raise RegistryError(
            f"{self.place}: could not claim a number for a new version in 100 attempts"
        )

    def numbers(self) -> list[int]:
        """Lists the numbers of complete, undeleted versions, newest first; some may be damaged."""
        files: dict[str, set[int]] = {MANIFEST: set(), DELETED: set(), UNREADABLE: set()}
        for name in self._store.names("versions"):
            number = number_of(name)
            if number is not None:
                files.setdefault(name.partition("/")[2], set()).add(number)
        return sorted((files[MANIFEST] | files[UNREADABLE]) - files[DELETED], reverse=True)

    def _readable(self) -> Iterator[Version]:
        for number in self.numbers():
            with contextlib.suppress(RegistryError):
                yield self._version(number, {})

    def _is_there(self, number: int) -> bool:
        names = self._store.names(folder_of(number))
        return MANIFEST in names and DELETED not in names

    def _version(self, number: int, aliases: Mapping[str, int]) -> Version:
        if number not in self._known:
            self._known[number] = parse_manifest(self._read(number, MANIFEST), number)
        own = tuple(alias for alias, target in aliases.items() if target == number)
        return self._known[number]._replace(aliases=own)

    def _read(self, number: int, file: str) -> bytes:
        try:
            return self._store.read(f"{folder_of(number)}/{file}", LIMITS_BYTES[file])
        except FileNotFoundError:
            raise RegistryError(f"version {number} is damaged: it has no {file}") from None

    def _parent(self, lineage: Mapping[str, Any]) -> int | None:
        """Returns the newest version of the same run."""
        for version in self.versions():
            if lineage.get("run") and version.metadata["lineage"].get("run") == lineage["run"]:
                return version.number
        return None

    def _refuse_aliased(self, number: int) -> None:
        names = [alias for alias, target in self.aliases().items() if target == number]
        if names:
            raise RegistryError(
                f"version {number} is {', '.join(names)}: promote another one before deleting it"
            )

    def _hint(self) -> str:
        numbers = [str(number) for number in self.numbers()[:5]]
        names = [*self.aliases(), *numbers]
        return f"; there are: {', '.join(names)}" if names else ", which is empty: publish one"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
