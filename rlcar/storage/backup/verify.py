"""Reads a backup again and compares every byte with its checksum."""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from rlcar.errors import StorageError
from rlcar.storage.backup.lease import leased, leased_for_reading
from rlcar.storage.backup.manifest import (
    Snapshot,
    Unreadable,
    blob_name,
    find_snapshot,
    read_snapshot,
    read_snapshots,
    require_backup,
    snapshot_names,
)
from rlcar.storage.backup.store import BackupStore, FolderStore, shown
from rlcar.storage.backup.upload import Counts, StoppedError


class Verified(NamedTuple):
    """Result of a verification."""

    snapshots: int
    blobs: int
    size_bytes: int
    damaged: dict[str, str]  # SHA-256 of a blob -> what is wrong
    lost: dict[str, list[str]]  # snapshot -> its files that cannot be restored
    unreadable: list[Unreadable]
    is_complete: bool  # every snapshot of the backup was checked


def verify(
    store: BackupStore,
    wanted: str | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    counts: Counts | None = None,
) -> Verified:
    """Checks all snapshots, or one of them, and every blob that they need, each once."""
    require_backup(store)
    counts = counts or Counts()
    with leased_for_reading(store):
        if wanted is None:
            good, bad = read_snapshots(store)
        else:
            good, bad = [read_snapshot(store, find_snapshot(store, wanted))], []
        checked = {one.name for one in good} | {one.name for one in bad}
        is_complete = checked == set(snapshot_names(store))
        sizes = {file.sha256: file.size_bytes for one in good for file in one.files}
        counts.total_bytes = sum(sizes.values())
        damaged = check_blobs(store, sizes, should_stop, counts)
    lost = {one.name: paths for one in good if (paths := _lost(one, damaged))}
    return Verified(len(good), len(sizes), counts.done_bytes, damaged, lost, bad, is_complete)


def check_blobs(
    store: BackupStore,
    sizes: dict[str, int],
    should_stop: Callable[[], bool],
    counts: Counts,
) -> dict[str, str]:
    """Reads blobs; returns what is wrong with those that are missing or not as they should be."""

    def check(digest: str) -> tuple[str, str]:
        hasher, size_bytes = hashlib.sha256(), 0
        try:
            for chunk in store.chunks(blob_name(digest)):
                if should_stop():
                    raise StoppedError
                hasher.update(chunk)
                size_bytes += len(chunk)
                counts.add(done_bytes=len(chunk))
        except FileNotFoundError:
            return digest, "is missing"
        except StorageError as error:
            if not isinstance(store, FolderStore):
                raise  # the network, and not this blob
            return digest, f"cannot be read ({error})"
        if size_bytes != sizes[digest]:
            return digest, f"has {size_bytes} of {sizes[digest]} bytes"
        return digest, "" if hasher.hexdigest() == digest else "has a wrong checksum"

    with ThreadPoolExecutor(store.parallel, thread_name_prefix="verify") as pool:
        try:
            results = dict(pool.map(check, sorted(sizes)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {digest: why for digest, why in results.items() if why}


def discard(store: BackupStore, digests: Iterable[str]) -> int:
    """Deletes damaged blobs, so that the next backup uploads those that the sources still have.

    Each is read once more, and stays if it cannot be read: a disk or a network may recover. Returns
    how many were deleted.
    """
    deleted = 0
    with leased(store, "prune"):
        for digest in digests:
            hasher = hashlib.sha256()
            try:
                for chunk in store.chunks(blob_name(digest)):
                    hasher.update(chunk)
            except (FileNotFoundError, StorageError):
                continue
            if hasher.hexdigest() != digest:
                store.delete(blob_name(digest))
                deleted += 1
    return deleted


def explain(verified: Verified, store: BackupStore) -> str:
    """Returns one sentence about what is damaged; empty if nothing is."""
    parts = [one.reason for one in verified.unreadable[:3]]
    if verified.damaged:
        digest, why = next(iter(verified.damaged.items()))
        newest = max(verified.lost)
        paths = verified.lost[newest]
        named = f"{', '.join(map(shown, paths[:3]))}{', …' if len(paths) > 3 else ''}"
        parts.append(
            f"{len(verified.damaged)} of {verified.blobs} blobs of {store.place} are damaged (the "
            f"first, {blob_name(digest)}, {why}): snapshot {newest} has lost {named}"
        )
        sound = [one for one in verified.lost if one != newest]
        parts.append(
            f"{verified.snapshots - len(verified.lost)} of {verified.snapshots} snapshots are "
            f"whole{f', and {len(sound)} more have losses' if sound else ''}; rlcar backup verify "
            "--discard lets the next backup upload again what the sources still have"
        )
    return "; ".join(parts)


def _lost(snapshot: Snapshot, damaged: dict[str, str]) -> list[str]:
    return [file.path for file in snapshot.files if file.sha256 in damaged]
