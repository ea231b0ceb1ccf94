"""Reads folders that trainings and servers write to, so that what is found fits together.

- A save is taken whole or not at all, with the saves that it needs. Its checksums are compared.
- A run's `best` and `checkpoints` are read before its metrics, so no row before the newest
  checkpoint is missing.
- The registry is read again until no version and no alias has changed meanwhile.
"""

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rlcar.errors import reason_of
from rlcar.storage.backup.manifest import RESTORING, FileEntry, FolderEntry, Skipped
from rlcar.storage.backup.store import LOST_AND_FOUND
from rlcar.storage.backup.upload import ChangingError, StoppedError, Uploader
from rlcar.storage.saves import DELETED, REPLACED, SAVING, Save, is_save_name, needs, saves
from rlcar.system.durable import WRITING

_UNFINISHED = (SAVING, DELETED, WRITING, ".claim-", ".clock-", RESTORING, ".probe-")
_NO_DATA = (*_UNFINISHED, LOST_AND_FOUND)
_SAVES_FIRST = ("best", "checkpoints")
_ATTEMPTS = 3
_POLL_S = 0.2

_Pending = dict[str, "Future[FileEntry]"]


class Capture:
    """Collects the entries of what is read."""

    def __init__(
        self, uploader: Uploader, pool: ThreadPoolExecutor, should_stop: Callable[[], bool]
    ):
        self._uploader, self._pool, self._should_stop = uploader, pool, should_stop
        self.files: dict[str, FileEntry] = {}
        self.folders: dict[str, FolderEntry] = {}
        self.skipped: dict[str, str] = {}  # path -> why it is not complete
        self.unreadable: dict[str, str] = {}  # path -> reason of the operating system

    def part(self, folder: Path, name: str) -> None:
        """Reads the folder of a part, its subfolders one after another."""
        self._folder(folder, name)

    def settled_part(self, folder: Path, name: str) -> None:
        """Reads a folder until a reading finds the same files before and after it."""
        for _ in range(_ATTEMPTS):
            before = listing(folder)
            self._drop(name)
            self._folder(folder, name)
            if listing(folder) == before:
                return
        self.skipped[name] = f"{folder} kept changing; its files may be from different times"

    def single_file(self, path: Path, name: str) -> None:
        """Reads one file."""
        self._gather({name: self._submit(path, name)})

    def as_skipped(self) -> list[Skipped]:
        """Returns what is missing, for the manifest."""
        return [
            Skipped(path=path, reason=reason)
            for path, reason in sorted({**self.skipped, **self.unreadable}.items())
        ]

    def _drop(self, name: str) -> None:
        for found in (self.files, self.folders, self.skipped, self.unreadable):
            for path in [one for one in found if one == name or one.startswith(f"{name}/")]:
                del found[path]

    def _folder(self, folder: Path, name: str) -> None:
        if self._should_stop():
            raise StoppedError
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return  # deleted meanwhile
        except OSError as error:
            self.unreadable[name] = reason_of(error)
            return
        self.folders[name] = FolderEntry(
            path=name,
            mode=stat.S_IMODE(status.st_mode) & 0o777,
            modified_ns=max(0, status.st_mtime_ns),
        )
        inner = {one.name for one in entries if one.is_dir(follow_symlinks=False)}
        if any(is_save_name(one.removeprefix(REPLACED)) for one in inner):
            self._saves(folder, name)
        # Once more, as a new best policy may have been saved while the checkpoints were read.
        order = [one for one in (*_SAVES_FIRST, _SAVES_FIRST[0]) if one in inner]
        for child in [*order, *sorted(inner - set(order))]:
            if not _is_text(child):
                self.skipped[_shown(f"{name}/{child}")] = "its name is not UTF-8"
            elif not child.startswith(_NO_DATA) and not is_save_name(child.removeprefix(REPLACED)):
                self._folder(folder / child, f"{name}/{child}")
        pending: _Pending = {}
        for entry in entries:
            if entry.name in inner or entry.name.startswith(_NO_DATA):
                continue
            path = f"{name}/{entry.name}"
            if _is_plain(entry):
                pending[path] = self._submit(folder / entry.name, path)
            else:
                self.skipped[_shown(path)] = _why_not(entry)
        self._gather(pending)

    def _saves(self, folder: Path, name: str) -> None:
        """Reads the complete saves; again if the training replaced or deleted one meanwhile."""
        found: dict[str, Save] = {}
        for attempt in range(_ATTEMPTS):
            before = found
            # The newest first, because a training deletes the oldest.
            found = {
                _name(save): save
                for save in reversed(saves(folder))
                if not save.path.is_symlink()  # `_folder` reports it
            }
            for one in before.keys() - found.keys():
                self._drop(f"{name}/{one}")
            lost = [
                one
                for one, save in found.items()
                if not self._save(save, f"{name}/{one}", is_last=attempt == _ATTEMPTS - 1)
            ]
            if not lost:
                break
        kept = {one for one in found if f"{name}/{one}/DONE" in self.files}
        for one in sorted(kept):
            missing = [other for other in needs(found[one]) if other not in kept]
            if missing:
                self._drop(f"{name}/{one}")
                self.skipped[f"{name}/{one}"] = f"{missing[0]}, which it needs, is missing"

    def _save(self, save: Save, name: str, *, is_last: bool) -> bool:
        """Reads a save; returns False, and keeps nothing of it, if it was not whole."""
        self._drop(name)
        try:
            status = save.path.stat()
            with os.scandir(save.path) as found:
                inner = sorted(found, key=lambda entry: entry.name)
            others = {one.name: _why_not(one) for one in inner if not _is_plain(one)}
            pending = {
                f"{name}/{one.name}": self._submit(save.path / one.name, f"{name}/{one.name}")
                for one in inner
                if _is_plain(one)
            }
            entries = {one: self._result(future) for one, future in pending.items()}
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ChangingError) as error:
            self.skipped[name] = f"it cannot be read: {reason_of(error)}"
            return is_last
        why = _difference(save, name, entries)
        if why and not is_last:
            return False
        self.files |= entries
        self.folders[name] = FolderEntry(
            path=name,
            mode=stat.S_IMODE(status.st_mode) & 0o777,
            modified_ns=max(0, status.st_mtime_ns),
        )
        if why:
            self.skipped[f"{name}/{why}"] = "it is damaged where it was read; it is kept as it is"
        for other, reason in others.items():
            self.skipped[_shown(f"{name}/{other}")] = reason
        return True

    def _submit(self, path: Path, name: str) -> "Future[FileEntry]":
        return self._pool.submit(self._uploader.store_file, path, name)

    def _gather(self, pending: _Pending) -> None:
        for name, future in pending.items():
            try:
                self.files[name] = self._result(future)
            except FileNotFoundError:
                continue  # deleted meanwhile
            except ChangingError:
                self.skipped[name] = "it changed each time it was read"
            except OSError as error:
                self.unreadable[name] = reason_of(error)

    def _result(self, future: "Future[FileEntry]") -> FileEntry:
        while True:
            try:
                return future.result(_POLL_S)
            except TimeoutError:
                if future.done():  # then a file system raised it
                    return future.result()
                if self._should_stop():
                    raise StoppedError from None


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns the size and time of every file below a folder that a backup would read."""
    found = {}
    for path, status in walk(folder):
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


def walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields the regular files below a folder without unfinished ones, and their state."""
    for place, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(_NO_DATA)]
        for file in files:
            try:
                status = Path(place, file).lstat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and not file.startswith(_NO_DATA):
                yield Path(place, file), status


def _difference(save: Save, name: str, entries: dict[str, FileEntry]) -> str:
    """Returns the first file of a save that is not what its meta.json says; empty if all are."""
    checksums = save.meta.get("sha256")
    if not isinstance(checksums, dict):
        return "meta.json"
    for file, digest in checksums.items():
        entry = entries.get(f"{name}/{file}")
        if entry is None or entry.sha256 != digest:
            return str(file)
    return ""


def _name(save: Save) -> str:
    return save.path.name.removeprefix(REPLACED)


def _is_plain(entry: "os.DirEntry[str]") -> bool:
    return _is_text(entry.name) and entry.is_file(follow_symlinks=False)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def _shown(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()


def _why_not(entry: "os.DirEntry[str]") -> str:
    if entry.is_symlink():
        return "it is a symbolic link, which is not followed"
    return "it is not a regular file" if _is_text(entry.name) else "its name is not UTF-8"
