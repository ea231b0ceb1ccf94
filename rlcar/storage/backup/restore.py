"""Brings back what a snapshot holds: checked, under a temporary name, then renamed.

    <folder of the part>/.restoring-<snapshot>/new/     filled first; an interruption leaves it
                                               /old/    what --overwrite replaces
                                               /placing.json   what is being renamed

What is renamed is an entry of the part's folder: a run, a sweep, a data set. Nothing is renamed
before every selected file is there. A repetition keeps what is already in `new` and sound.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rlcar.errors import StorageError, UserError, command, reason_of
from rlcar.storage.backup.fetch import Fetch
from rlcar.storage.backup.lease import leased_for_reading
from rlcar.storage.backup.manifest import (
    RESTORING,
    FileEntry,
    FolderEntry,
    Snapshot,
    blob_name,
    find_snapshot,
    read_snapshot,
    read_snapshots,
    require_backup,
    snapshot_names,
)
from rlcar.storage.backup.store import BackupStore, make_private_folder, shown
from rlcar.storage.backup.upload import Counts
from rlcar.system import durable
from rlcar.system.durable import sync_folder
from rlcar.system.lease import HeldError, hold, holder

_BLOCK_BYTES = 4096  # what most file systems give to a file at least


class Item(NamedTuple):
    """What is renamed into place as a whole, for example one run."""

    part: str
    name: str  # of the entry in the part's folder
    target: Path

    @property
    def path(self) -> str:
        """The path in the manifest."""
        return f"{self.part}/{self.name}"


class Restored(NamedTuple):
    """Result of a restoration."""

    snapshot: Snapshot
    items: list[Item]
    files: int
    size_bytes: int


class Selection(NamedTuple):
    """What to restore, and where to."""

    targets: Mapping[str, Path]  # part -> folder; for `tokens` the file
    parts: Sequence[str] = ()  # empty: all but the tokens
    runs: Sequence[str] = ()  # names of runs, and no other part; empty: all
    may_overwrite: bool = False
    may_lose: bool = False  # leaves out files that are damaged in the backup


def restore(
    store: BackupStore,
    wanted: str,
    selection: Selection,
    *,
    is_dry_run: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    counts: Counts | None = None,
) -> Restored:
    """Restores the selected items of a snapshot.

    Raises UserError before anything is written if an item is there already, the disk is too small,
    or the snapshot does not hold what was selected. Items with damaged files are left out, and
    named in the UserError at the end.
    """
    counts = counts or Counts()
    require_backup(store)
    with leased_for_reading(store):
        snapshot = _read_wanted(store, wanted)
        items = _items(store, snapshot, selection)
        with contextlib.ExitStack() as held:
            stagings = _stagings(snapshot, items)
            todo = _not_placed(items, stagings)
            _refuse_existing(todo, selection)
            by_item = _by_item(snapshot)
            files = {item: by_item.get(item.path, []) for item in todo}
            size_bytes = sum(file.size_bytes for one in files.values() for file in one)
            counts.total_bytes = size_bytes
            _require_space(files, stagings)
            restored = Restored(snapshot, items, sum(map(len, files.values())), size_bytes)
            if is_dry_run:
                return restored
            for staging in stagings.values():
                held.enter_context(_held(staging))
            fetch = Fetch(store, should_stop, counts)
            damaged = fetch.files(_paths(files, stagings))
            lost = [item for item in todo if any(file in damaged for file in files[item])]
            if selection.may_lose:
                lost = []
            _refuse_existing(todo, selection)  # a training or a server may have begun meanwhile
            _place(snapshot, [item for item in todo if item not in lost], items, stagings)
        for staging in stagings.values():
            if not lost:
                shutil.rmtree(staging, ignore_errors=True)
        if damaged and not selection.may_lose:
            raise UserError(_loss(store, snapshot, lost, damaged))
    return restored


def _read_wanted(store: BackupStore, wanted: str) -> Snapshot:
    name = find_snapshot(store, wanted)
    try:
        return read_snapshot(store, name)
    except StorageError as error:
        older = [one for one in snapshot_names(store) if one < name]
        if not older:
            raise
        raise StorageError(f"{error}; restore an older one with --snapshot {older[-1]}") from error


def _items(store: BackupStore, snapshot: Snapshot, selection: Selection) -> list[Item]:
    """Returns what is selected, in the order in which it is put in place."""
    parts = selection.parts or [part for part in snapshot.parts if part != "tokens"]
    if selection.runs:
        others = [part for part in selection.parts if part != "runs"]
        if others:
            raise UserError(
                f"--run {selection.runs[0]} restores runs alone, and --only {others[0]} asks for "
                "another part: give one of the two, and restore the other with a second command"
            )
        parts = ["runs"]
    absent = [part for part in parts if part not in snapshot.parts]
    if absent:
        held = ", ".join(snapshot.parts)
        raise UserError(
            f"snapshot {snapshot.name} of {store.place} holds {held} and not {absent[0]}: see "
            "rlcar backup list for another --snapshot"
        )
    names: dict[str, set[str]] = {part: set() for part in parts}
    for path in [file.path for file in snapshot.files] + [one.path for one in snapshot.folders]:
        part, *inner = path.split("/")
        if part in names and inner:
            names[part].add(inner[0])
    if selection.runs:
        unknown = sorted(set(selection.runs) - names["runs"])
        if unknown:
            raise UserError(
                f"snapshot {snapshot.name} of {store.place} holds no run "
                f"{shown(unknown[0], 80)!r}; it holds: "
                f"{', '.join(map(shown, sorted(names['runs'])[:10]))}"
            )
        names["runs"] &= set(selection.runs)
    found = []
    for part in parts:
        folder = selection.targets[part]
        # `versions` before `aliases`, so that no alias ever points at nothing.
        for name in sorted(names[part], reverse=True):
            is_file = part == "tokens"
            found.append(Item(part, name, folder if is_file else folder / name))
    if not found:
        raise UserError(
            f"snapshot {snapshot.name} of {store.place} holds none of the selected parts"
        )
    return found


def _stagings(snapshot: Snapshot, items: list[Item]) -> dict[Path, Path]:
    """Maps each folder that something is put into to the temporary folder inside it."""
    name = f"{RESTORING}{snapshot.name}"
    return {item.target.parent: item.target.parent / name for item in items}


def _refuse_existing(items: list[Item], selection: Selection) -> None:
    existing = [item for item in items if _is_taken(item.target)]
    if existing and not selection.may_overwrite:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UserError(
            f"{shown(str(existing[0].target))}{more} exists already: restore into another "
            "folder with --to, or replace it with --overwrite"
        )
    for item in existing:
        why = holder(item.target) if item.target.is_dir() else None
        if why:
            raise HeldError(f"{item.target} cannot be replaced: {why}")


def _is_taken(path: Path) -> bool:
    try:
        return path.is_symlink() or (path.exists() and not (path.is_dir() and not any(_scan(path))))
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason_of(error)}") from error


def _scan(folder: Path) -> "Iterator[os.DirEntry[str]]":
    with os.scandir(folder) as entries:
        yield from entries


def _by_item(snapshot: Snapshot) -> dict[str, list[FileEntry]]:
    """Groups files by the path of the item that they belong to."""
    found: dict[str, list[FileEntry]] = {}
    for file in snapshot.files:
        found.setdefault("/".join(file.path.split("/", 2)[:2]), []).append(file)
    return found


def _require_space(files: Mapping[Item, list[FileEntry]], stagings: Mapping[Path, Path]) -> None:
    """Raises UserError unless the disks have room for what a first attempt has not written yet.

    With --overwrite the old files stay until the new ones are complete.
    """
    wanted: dict[int, int] = {}
    places: dict[int, Path] = {}
    for item, entries in files.items():
        place = next(one for one in item.target.absolute().parents if one.exists())
        disk = place.stat().st_dev
        places[disk] = place
        missing = [
            entry
            for entry, path in _paths({item: entries}, stagings)
            if not _is_staged(entry, path)
        ]
        wanted[disk] = wanted.get(disk, 0) + sum(_on_disk(entry.size_bytes) for entry in missing)
    for disk, size_bytes in wanted.items():
        status = os.statvfs(places[disk])
        free_bytes = status.f_bavail * status.f_frsize
        if size_bytes > free_bytes:
            raise UserError(
                f"{places[disk]} has {free_bytes:,} bytes free, and {size_bytes:,} are to be "
                "restored: free space, or restore into another folder with --to"
            )


def _is_staged(entry: FileEntry, path: Path) -> bool:
    try:
        return path.lstat().st_size == entry.size_bytes
    except OSError:
        return False


def _on_disk(size_bytes: int) -> int:
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


@contextlib.contextmanager
def _held(staging: Path) -> Iterator[None]:
    """Creates the temporary folder and keeps a second restoration out of it."""
    with durable.explaining_write_errors(staging):
        make_private_folder(staging / "new")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(staging))
        except HeldError:
            raise UserError(
                f"another process restores into {staging.parent}: wait until it has ended"
            ) from None
        yield


def _paths(
    files: Mapping[Item, list[FileEntry]], stagings: Mapping[Path, Path]
) -> Iterator[tuple[FileEntry, Path]]:
    for item, entries in files.items():
        for entry in entries:
            inner = entry.path.removeprefix(item.path)
            yield entry, stagings[item.target.parent] / "new" / f"{item.name}{inner}"


def _place(
    snapshot: Snapshot, todo: list[Item], items: list[Item], stagings: Mapping[Path, Path]
) -> None:
    """Renames the items into place, after noting which ones, for a repetition."""
    folders: dict[str, FolderEntry] = {entry.path: entry for entry in snapshot.folders}
    for item in todo:
        _finish_folders(item, stagings[item.target.parent] / "new" / item.name, folders)
    for root, staging in stagings.items():
        names = [item.name for item in items if item.target.parent == root]
        with durable.explaining_write_errors(root):
            durable.replace_durably(staging / "placing.json", json.dumps(names).encode(), 0o600)
            # With the aliases of another registry, a version could have a name that it never had.
            parts = {item.part for item in todo if item.target.parent == root}
            extra = {"versions", "aliases"} - {*names} if parts == {"models"} else set()
            targets = [one.target for one in todo if one.target.parent == root]
            for target in [*(root / name for name in extra), *targets]:
                _move_aside(target, staging / "old" / target.name)
            for item in todo:
                if item.target.parent == root:
                    os.replace(staging / "new" / item.name, item.target)
            sync_folder(root)
    for part in {item.part for item in todo} - {"tokens"}:
        entry = folders.get(part)
        root = next(item.target.parent for item in todo if item.part == part)
        if entry is not None:
            with contextlib.suppress(OSError):  # it may belong to somebody else
                os.chmod(root, entry.mode | 0o700)


def _move_aside(target: Path, aside: Path) -> None:
    if not (target.is_symlink() or target.exists()):
        return
    aside.parent.mkdir(mode=0o700, exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(target, aside)


def _finish_folders(item: Item, staged: Path, folders: Mapping[str, FolderEntry]) -> None:
    """Makes empty folders, and sets modes and times, from the inside out."""
    if not staged.exists() and item.path not in folders:
        return
    inner = [path for path in folders if path == item.path or path.startswith(f"{item.path}/")]
    places = {path: staged.parent / f"{item.name}{path.removeprefix(item.path)}" for path in inner}
    with durable.explaining_write_errors(staged):
        for path in inner:
            places[path].mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(inner, reverse=True):
            entry = folders[path]
            # The owner must be able to rename and to delete it.
            os.chmod(places[path], entry.mode | 0o700)
            sync_folder(places[path])
            os.utime(places[path], ns=(entry.modified_ns, entry.modified_ns))


def _not_placed(items: list[Item], stagings: Mapping[Path, Path]) -> list[Item]:
    """Returns the items that an interrupted restoration has not yet renamed into place."""
    begun = {root: _begun(staging) for root, staging in stagings.items()}
    return [
        item
        for item in items
        if item.name not in begun[item.target.parent]
        or (stagings[item.target.parent] / "new" / item.name).exists()
        or not item.target.exists()
    ]


def _begun(staging: Path) -> set[str]:
    """Returns the items that an interrupted restoration was about to rename."""
    try:
        return set(json.loads((staging / "placing.json").read_text()))
    except (OSError, ValueError, TypeError):
        return set()


def _loss(
    store: BackupStore, snapshot: Snapshot, lost: list[Item], damaged: Mapping[FileEntry, str]
) -> str:
    """Returns one sentence about what is damaged, and which older snapshot still has it."""
    paths = sorted(entry.path for entry in damaged)
    first = next(entry for entry in damaged if entry.path == paths[0])
    sentence = (
        f"{len(paths)} files of snapshot {snapshot.name} are damaged in {store.place}: "
        f"{', '.join(map(shown, paths[:3]))}{', …' if len(paths) > 3 else ''} "
        f"({blob_name(first.sha256)}: {damaged[first]}); not restored: "
        f"{', '.join(shown(item.path) for item in lost[:5])}"
    )
    older = _older_whole(store, snapshot, lost, {entry.sha256 for entry in damaged})
    if older is not None:
        again = command("restore", store.place, "--snapshot", older)
        return f"{sentence}; snapshot {older} still has all of it: {again}"
    return f"{sentence}; --skip-damaged restores the other files"


def _older_whole(
    store: BackupStore, snapshot: Snapshot, lost: list[Item], damaged: set[str]
) -> str | None:
    """Returns the newest other snapshot whose blobs of these items are there and not damaged."""
    sizes = {name[3:]: info.size_bytes for name, info in store.list("blobs").items()}
    for other in reversed(read_snapshots(store)[0]):
        by_item = _by_item(other)
        needed = [file for item in lost for file in by_item.get(item.path, [])]
        has_all = all(item.path in by_item for item in lost)
        if other.name != snapshot.name and has_all:
            is_whole = all(
                file.sha256 not in damaged and sizes.get(file.sha256) == file.size_bytes
                for file in needed
            )
            if is_whole:
                return other.name
    return None
