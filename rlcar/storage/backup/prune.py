"""Removes old snapshots, and the blobs that no snapshot needs any more.

All ages count from the newest snapshot, and not from now. A backup that has stopped loses nothing
therefore, and neither does one whose host has a wrong clock.

A snapshot that is reduced to its models gets a new manifest under a new name, with the same number,
before the old one is deleted: no manifest is ever replaced.
"""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from rlcar.errors import StorageError
from rlcar.storage.backup.lease import BackupLease, leased
from rlcar.storage.backup.manifest import (
    BLOBS,
    SNAPSHOTS,
    Snapshot,
    now_utc,
    read_snapshots,
    reduced_name,
    require_backup,
    write_snapshot,
)
from rlcar.storage.backup.store import BackupStore, FolderStore

# Blobs that no snapshot needs stay for a day: an interrupted backup will want them again.
UNUSED_STAYS_S = 24 * 3600.0


class Rules(NamedTuple):
    """How long snapshots are kept."""

    days: float = 30.0  # all of a snapshot
    model_days: float = 90.0  # of an older one, the models
    monthly: int = 12  # the newest snapshot of each of so many months, whole


class Pruned(NamedTuple):
    """Result of a removal."""

    kept: list[str]
    reduced: list[str]  # to their models
    removed: list[str]
    blobs: int
    freed_bytes: int


def prune(store: BackupStore, rules: Rules, *, is_dry_run: bool = False) -> Pruned:
    """Applies the rules; the newest snapshot is always kept.

    Raises StorageError if a manifest cannot be read, because its blobs are not known then.
    """
    require_backup(store)
    if is_dry_run:
        return _prune(store, rules, None)
    with leased(store, "prune") as lease:
        return _prune(store, rules, lease)


def _prune(store: BackupStore, rules: Rules, lease: BackupLease | None) -> Pruned:
    """Checks the lease before each change: without it, a backup may need what is removed.

    Without a lease nothing is changed.
    """
    snapshots, unreadable = read_snapshots(store)
    if unreadable:
        raise StorageError(
            f"{unreadable[0].reason}; nothing was removed, as the blobs that it needs are not "
            "known: delete that file, or restore it from a copy"
        )
    kept = _apply(snapshots, rules)
    there = {one.name: one for one in snapshots}
    gone = [one for one in snapshots if one.name not in kept]
    reduced_now = {
        one.name: kept[reduced_name(one.name)] for one in gone if reduced_name(one.name) in kept
    }
    if lease is not None:
        # After an interruption a reduced snapshot may be there already, beside the whole one.
        for new in reduced_now.values():
            if there.get(new.name) != new:
                lease.check()
                write_snapshot(store, new)
        store.sync()
        for one in gone:
            lease.check()
            store.delete(f"{SNAPSHOTS}/{one.name}.json")
        store.sync()
    blobs, freed_bytes = _remove_unused(store, list(kept.values()), lease)
    return Pruned(
        sorted(kept.keys() - {one.name for one in reduced_now.values()}),
        sorted(reduced_now),
        sorted(one.name for one in gone if one.name not in reduced_now),
        blobs,
        freed_bytes,
    )


def _apply(snapshots: Sequence[Snapshot], rules: Rules) -> dict[str, Snapshot]:
    """Returns the snapshots to keep, some of them reduced, by name.

    The rules are applied until they change nothing: if a clock was wrong, the age of a snapshot
    depends on those before it.
    """
    now, before = now_utc(), list[Snapshot]()
    kept = {one.name: one for one in snapshots}
    while list(kept.values()) != before:
        before = list(kept.values())
        whole, models = select(before, rules, now)
        reduced = [one if one.parts == ["models"] else _only_models(one) for one in models]
        kept = {one.name: one for one in sorted([*whole, *reduced], key=lambda one: one.name)}
    return kept


def select(
    snapshots: Sequence[Snapshot], rules: Rules, now: datetime
) -> tuple[list[Snapshot], list[Snapshot]]:
    """Returns the snapshots to keep whole, and those to reduce to their models, oldest first."""
    times = _times(snapshots, now)
    if not snapshots:
        return [], []
    newest = times[-1]
    whole = {snapshots[-1].name}
    months: dict[tuple[int, int], str] = {}
    for one, made in zip(snapshots, times, strict=True):
        if newest - made <= timedelta(days=rules.days):
            whole.add(one.name)
        if one.parts != ["models"]:
            months[made.year, made.month] = one.name  # a later one replaces it
    for month in sorted(months, reverse=True)[: rules.monthly]:
        whole.add(months[month])
    models = [
        one
        for one, made in zip(snapshots, times, strict=True)
        if one.name not in whole
        and "models" in one.parts
        and newest - made <= timedelta(days=rules.model_days)
    ]
    return [one for one in snapshots if one.name in whole], models


def _times(snapshots: Sequence[Snapshot], now: datetime) -> list[datetime]:
    """Returns when each was made; a later one is never older than an earlier one.

    A clock that was wrong can make a snapshot look younger, so that it is kept longer, and not
    older. One of the future counts as made now.
    """
    times: list[datetime] = []
    latest: datetime | None = None
    for one in snapshots:
        if one.time > now:
            times.append(now)
            continue
        latest = max(latest, one.time) if latest else one.time
        times.append(latest)
    return times


def _only_models(snapshot: Snapshot) -> Snapshot:
    return snapshot.model_copy(
        update={
            "name": reduced_name(snapshot.name),
            "parts": ["models"],
            "files": [one for one in snapshot.files if one.path.startswith("models/")],
            "folders": [one for one in snapshot.folders if one.path.split("/")[0] == "models"],
            "skipped": [one for one in snapshot.skipped if one.path.split("/")[0] == "models"],
        }
    )


def _remove_unused(
    store: BackupStore, snapshots: Sequence[Snapshot], lease: BackupLease | None
) -> tuple[int, int]:
    """Deletes blobs that no snapshot needs; returns how many, and their bytes."""
    needed = {file.sha256 for one in snapshots for file in one.files}
    blobs = store.list(BLOBS)
    # By the store's clock, which has just stamped the lease; a dry run has none.
    now_s = lease.renewed_unix_s() if lease else time.time()
    if isinstance(store, FolderStore) and lease:
        store.remove_unfinished(now_s - UNUSED_STAYS_S)
    count = freed_bytes = 0
    for name, info in sorted(blobs.items()):
        is_old = now_s - info.modified_unix_s > UNUSED_STAYS_S
        if name.rpartition("/")[2] not in needed and is_old:
            if lease:
                lease.check()
                store.delete(f"{BLOBS}/{name}")
            count += 1
            freed_bytes += info.size_bytes
    return count, freed_bytes
