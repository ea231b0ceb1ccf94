"""Makes a snapshot of the folders of an installation."""

import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rlcar import __version__
from rlcar.errors import StorageError, UserError, reason_of
from rlcar.storage.backup.lease import BackupLease, leased
from rlcar.storage.backup.manifest import (
    FORMAT_VERSION,
    PARTS,
    SNAPSHOTS,
    FileEntry,
    Skipped,
    Snapshot,
    begin_backup,
    new_name,
    now_utc,
    read_snapshot,
    require_backup,
    require_room_for,
    snapshot_names,
    write_snapshot,
)
from rlcar.storage.backup.sources import Capture, walk
from rlcar.storage.backup.store import BackupStore, FolderStore, shown
from rlcar.storage.backup.upload import Counts, Uploader
from rlcar.system.provenance import commit

_NAMED = 5  # files that a message names


class Created(NamedTuple):
    """Result of a backup."""

    snapshot: Snapshot  # `lacking` names what could not be read
    reread: int  # files that had changed while they were read
    warnings: list[str]


class Planned(NamedTuple):
    """What a backup would do."""

    files: int
    size_bytes: int
    new_files: int  # those that are new or have changed
    new_bytes: int  # at most: files with known content are not uploaded


def create_snapshot(
    store: BackupStore,
    sources: Mapping[str, Path],
    *,
    should_hash_all: bool = False,
    may_lack_parts: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    counts: Counts | None = None,
) -> Created:
    """Backs up the folders (for `tokens`: the file) of the parts that exist.

    Whatever ends it, the snapshots before stay as they are, and a repetition uploads only what is
    missing. Raises UserError with the reason, or StoppedError when `should_stop` says so.
    """
    counts = counts or Counts()
    present = _present(store, sources)
    begin_backup(store)
    with leased(store, "backup") as lease:
        names, warnings = snapshot_names(store), list[str]()
        parent = _newest(store, names, warnings)
        started = now_utc()
        _compare_with(parent, present, started, warnings, may_lack_parts=may_lack_parts)
        files, counts.total_bytes = _measure(present)
        require_room_for(files)
        before = {file.path: file for file in parent.files} if parent else {}
        uploader = Uploader(store, before, counts, should_stop, should_hash_all=should_hash_all)
        capture = _read(uploader, present, store.parallel, should_stop)
        snapshot = Snapshot(
            format_version=FORMAT_VERSION,
            name=new_name(names, started),
            started=started.isoformat(timespec="seconds"),
            finished=now_utc().isoformat(timespec="seconds"),
            host=socket.gethostname(),
            rlcar=__version__,
            commit=commit(),
            sources={part: str(folder) for part, folder in present.items()},
            parts=list(present),
            files=[capture.files[path] for path in sorted(capture.files)],
            folders=[capture.folders[path] for path in sorted(capture.folders)],
            skipped=capture.as_skipped(),
            uploaded_bytes=counts.uploaded_bytes,
            uploaded_blobs=counts.uploaded_blobs,
        )
        _publish(store, lease, snapshot)
    missing = {one.path for one in snapshot.lacking}
    warnings += [_sentence(one) for one in snapshot.skipped if one.path not in missing]
    return Created(snapshot, counts.reread, warnings)


def explain_lacking(snapshot: Snapshot) -> str:
    """Returns one sentence about what a snapshot lacks; empty if that is nothing."""
    lacking = snapshot.lacking
    if not lacking:
        return ""
    named = "; ".join(_sentence(one) for one in lacking[:_NAMED])
    more = f"; and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    return f"snapshot {snapshot.name} lacks {len(lacking)} files or folders: {named}{more}"


def plan_snapshot(store: BackupStore, sources: Mapping[str, Path]) -> Planned:
    """Compares the folders with the newest snapshot; writes nothing and reads no file."""
    present = _present(store, sources)
    known: dict[str, FileEntry] = {}
    if store.list(SNAPSHOTS):
        require_backup(store)
        parent = _newest(store, snapshot_names(store), [])
        known = {file.path: file for file in parent.files} if parent else {}
    planned = Planned(0, 0, 0, 0)
    for part, folder in present.items():
        for path, status in walk(folder) if folder.is_dir() else [(folder, folder.stat())]:
            inner = path.relative_to(folder).as_posix() if path != folder else path.name
            before = known.get(f"{part}/{inner}")
            stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            is_new = before is None or stamp != (
                before.size_bytes,
                before.modified_ns,
                before.changed_ns,
            )
            planned = Planned(
                planned.files + 1,
                planned.size_bytes + status.st_size,
                planned.new_files + is_new,
                planned.new_bytes + status.st_size * is_new,
            )
    return planned


def _present(store: BackupStore, sources: Mapping[str, Path]) -> dict[str, Path]:
    """Returns the resolved folders that exist; raises UserError if there is nothing in them."""
    present = {}
    for part in PARTS:
        if part not in sources:
            continue
        folder = sources[part].resolve()
        if isinstance(store, FolderStore):
            target = store.folder.resolve()
            if target == folder or folder in target.parents or target in folder.parents:
                raise UserError(
                    f"the backup {store.place} and the folder {sources[part]} must not contain "
                    "each other: choose a target elsewhere, best on another disk"
                )
        try:
            if folder.is_dir():
                os.scandir(folder).close()  # `walk` passes over what it may not read
            if any(True for _ in walk(folder)) or (part == "tokens" and folder.is_file()):
                present[part] = folder
        except OSError as error:
            raise UserError(f"cannot read {folder}: {reason_of(error)}") from error
    if not present:
        raise UserError(
            "there is nothing to back up: "
            f"{', '.join(str(folder) for folder in sources.values())} hold no file; name the "
            "folders, for example with --runs"
        )
    return present


def _newest(store: BackupStore, names: list[str], warnings: list[str]) -> Snapshot | None:
    """Returns the newest snapshot that can be read."""
    for name in reversed(names):
        try:
            return read_snapshot(store, name)
        except StorageError as error:
            warnings.append(f"{error}; unchanged files are compared with an older snapshot")
    return None


def _compare_with(
    parent: Snapshot | None,
    present: Mapping[str, Path],
    now: datetime,
    warnings: list[str],
    *,
    may_lack_parts: bool,
) -> None:
    if parent is None:
        return
    if parent.time > now:
        warnings.append(
            f"the newest snapshot {parent.name} is dated in the future ({parent.started}): check "
            "the clock of this host; the order of the snapshots is kept"
        )
    missing = [part for part in parent.parts if part not in present and part != "tokens"]
    if missing and not may_lack_parts:
        raise UserError(
            f"the newest snapshot {parent.name} holds {missing[0]}, and now there is nothing in "
            f"{parent.sources.get(missing[0], missing[0])}: is its disk mounted? If it was removed "
            "on purpose, add --allow-missing"
        )


def _measure(present: Mapping[str, Path]) -> tuple[int, int]:
    """Returns the number of files and their total size in bytes."""
    sizes = [status.st_size for folder in present.values() for _, status in walk(folder)]
    return len(sizes), sum(sizes)


def _read(
    uploader: Uploader,
    present: Mapping[str, Path],
    parallel: int,
    should_stop: Callable[[], bool],
) -> Capture:
    with ThreadPoolExecutor(parallel, thread_name_prefix="backup") as pool:
        capture = Capture(uploader, pool, should_stop)
        try:
            for part, folder in present.items():
                if part == "models":
                    capture.settled_part(folder, part)
                elif folder.is_file():
                    capture.single_file(folder, f"{part}/{folder.name}")
                else:
                    capture.part(folder, part)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return capture


def _publish(store: BackupStore, lease: BackupLease, snapshot: Snapshot) -> None:
    """Writes the manifest, unless the lease was lost: blobs may have been removed then."""
    store.sync()
    lease.check()
    write_snapshot(store, snapshot)
    store.sync()
    try:
        lease.check()
    except StorageError:
        store.delete(f"{SNAPSHOTS}/{snapshot.name}.json")
        raise


def _sentence(skipped: Skipped) -> str:
    return f"{shown(skipped.path)}: {shown(skipped.reason)}"
