"""Old snapshots go by the rules; what a kept one needs, and what is just being written, stays."""

import os
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest

from rlcar.errors import StorageError
from rlcar.storage.backup import prune as prune_module
from rlcar.storage.backup import store as store_module
from rlcar.storage.backup.lease import BusyError, leased
from rlcar.storage.backup.manifest import (
    Snapshot,
    read_snapshot,
    read_snapshots,
    snapshot_names,
    write_snapshot,
)
from rlcar.storage.backup.prune import Rules, prune, select
from rlcar.storage.backup.store import FolderStore, open_store
from rlcar.storage.backup.verify import explain, verify
from tests.storage.backup.conftest import contents

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def snapshot(number: int, time_: datetime, parts=("runs", "models")) -> Snapshot:
    return Snapshot(
        format_version=1,
        name=f"{number:06d}-{time_:%Y%m%dT%H%M%SZ}-abcd",
        started=time_.isoformat(),
        finished=time_.isoformat(),
        host="host",
        rlcar="0",
        commit=None,
        sources={},
        parts=list(parts),
        files=[],
        folders=[],
        skipped=[],
        uploaded_bytes=0,
        uploaded_blobs=0,
    )


def daily(days: int) -> list[Snapshot]:
    return [snapshot(n + 1, NOW - timedelta(days=days - 1 - n)) for n in range(days)]


def ages(snapshots) -> list[int]:
    return [(NOW - one.time).days for one in snapshots]


def test_daily_snapshots_are_kept_as_the_rules_say():
    whole, models = select(daily(500), Rules(), NOW)
    assert ages(whole)[-31:] == list(range(30, -1, -1))
    months = ages(whole)[:-31]
    # The last days of October 2026, September, … December 2025; November's is the newest of all.
    firsts = [datetime(2026, month, 1, 12, tzinfo=UTC) for month in range(1, 12)]
    last_days = [(NOW - (first - timedelta(days=1))).days for first in firsts]
    assert months == [age for age in last_days if age > 30]
    assert len(months) == 10
    assert all(30 < age <= 90 for age in ages(models))
    assert len(models) == 60 - len([age for age in months if age <= 90])


def test_a_backup_that_has_stopped_loses_nothing():
    old = daily(40)
    assert select(old, Rules(), NOW + timedelta(days=5000)) == select(old, Rules(), NOW)


def test_the_newest_is_kept_whatever_the_rules():
    whole, models = select(daily(5), Rules(0, 0, 0), NOW)
    assert (ages(whole), models) == ([0], [])


@pytest.mark.parametrize(
    "wrong", [datetime(1970, 1, 2, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)]
)
def test_a_clock_that_was_wrong_once_costs_no_snapshot(wrong):
    right = daily(20)
    mixed = [*right[:10], snapshot(11, wrong), *right[11:]]
    whole, _ = select(mixed, Rules(), NOW)
    assert len(whole) == 20


def test_no_snapshots_are_fine():
    assert select([], Rules(), NOW) == ([], [])


def aged(store, name, days):
    """Makes a snapshot older, and all blobs older than a day."""
    one = read_snapshot(store, name)
    earlier = one.time - timedelta(days=days)
    write_snapshot(store, one.model_copy(update={"started": earlier.isoformat()}))
    for path in (store.folder / "blobs").rglob("*"):
        os.utime(path, (time.time() - 90_000,) * 2)


def test_blobs_that_no_snapshot_needs_are_deleted_and_the_rest_is_whole(site, tmp_path):
    store = FolderStore(tmp_path / "backup")
    site.back_up(store.folder)
    shutil.rmtree(site.root / "runs" / "first" / "checkpoints")
    (site.root / "models" / "versions" / "00000002").mkdir()
    (site.root / "models" / "versions" / "00000002" / "manifest.json").write_text("two")
    site.back_up(store.folder)
    first, second = snapshot_names(store)
    aged(store, first, 60)
    rules = Rules(30, 90, 0)
    planned = prune(store, rules, is_dry_run=True)
    blobs = store.list("blobs")
    assert (planned.reduced, planned.kept) == ([first], [second])
    assert planned.blobs > 0
    pruned = prune(store, rules)
    assert pruned == planned
    assert len(store.list("blobs")) == len(blobs) - pruned.blobs
    reduced = snapshot_names(store)[0]
    assert (reduced[:-4], reduced != first) == (first[:-4], True)
    assert read_snapshot(store, reduced).parts == ["models"]
    assert explain(verify(store), store) == ""
    assert prune(store, rules).reduced == []
    aged(store, reduced, 60)
    assert prune(store, rules).removed == [reduced]
    before = contents(site.root)
    shutil.rmtree(site.root)
    site.restore(store.folder)
    assert contents(site.root) == before


def test_blobs_of_an_interrupted_backup_stay_for_a_day(site, target):
    site.back_up(target)
    store = open_store(target)
    store.write("blobs/00/" + "0" * 64, [b"of an interrupted backup"])
    assert prune(store, Rules()).blobs == 0
    assert "00/" + "0" * 64 in store.list("blobs")


def test_what_killed_backups_have_left_half_written_is_deleted_after_a_day(site, tmp_path):
    store = FolderStore(tmp_path / "backup")
    site.back_up(store.folder)
    old, new = (store.folder / "blobs" / f".writing-{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    prune(store, Rules(), is_dry_run=True)
    assert old.exists()
    prune(store, Rules())
    assert (old.exists(), new.exists()) == (False, True)


def test_nothing_is_removed_while_a_backup_or_a_restoration_runs(site, target):
    site.back_up(target)
    store = open_store(target)
    for purpose, words in (("backup", "makes a backup in"), ("read", "reads")):
        with leased(store, purpose), pytest.raises(BusyError, match=words):
            prune(store, Rules())
    with leased(store, "prune"), pytest.raises(BusyError, match="removes snapshots from"):
        site.restore(target)
    with leased(store, "backup"), leased(store, "read"):
        pass


def test_a_removal_that_has_lost_its_lease_removes_no_more(site, target, monkeypatch):
    """It was stopped for so long that a backup has begun, which may need the blobs."""
    site.back_up(target)
    store = open_store(target)
    for number in range(2):
        store.write(f"blobs/00/{number:064}", [b"unused"])
    monkeypatch.setattr(prune_module, "UNUSED_STAYS_S", -1.0)
    delete = type(store).delete

    def delete_and_lose(self, name):
        delete(self, name)
        for lease in self.list("leases"):
            delete(self, f"leases/{lease}")

    monkeypatch.setattr(type(store), "delete", delete_and_lose)
    with pytest.raises(StorageError, match="start again"):
        prune(store, Rules())
    assert len([name for name in store.list("blobs") if name.startswith("00/000")]) == 1


def test_the_disk_has_forgotten_a_snapshot_before_its_blobs_go(site, tmp_path, monkeypatch):
    store = FolderStore(tmp_path / "backup")
    for _ in range(2):
        site.back_up(store.folder)
    aged(store, snapshot_names(store)[0], 60)
    synced = []
    monkeypatch.setattr(store_module, "sync_folder", synced.append)
    prune(FolderStore(store.folder), Rules(0, 0, 0))
    assert store.folder / "snapshots" in synced


def test_a_snapshot_that_cannot_be_replaced_stays_as_it_was(site, bucket, monkeypatch):
    site.back_up(bucket)
    store = open_store(bucket)
    (name,) = snapshot_names(store)
    one = read_snapshot(store, name)

    class Failing:
        def open_output_stream(self, path):
            raise OSError("the store is busy")

        def __getattr__(self, name):
            return getattr(files, name)

    files = store._files
    monkeypatch.setattr(store, "_files", Failing())
    with pytest.raises(StorageError, match="the store is busy"):
        write_snapshot(store, one.model_copy(update={"parts": ["models"]}))
    assert read_snapshot(open_store(bucket), name) == one


def test_a_manifest_is_never_replaced(site, target, monkeypatch):
    """Half of a new one may be all that is left of it."""
    for _ in range(2):
        site.back_up(target)
    store = open_store(target)
    monkeypatch.setattr(prune_module, "select", reduce_all_but_the_newest)
    before = set(store.list("snapshots"))
    written, write = [], type(store).write
    monkeypatch.setattr(
        type(store),
        "write",
        lambda self, name, *more: written.append(name) or write(self, name, *more),
    )
    (reduced,) = prune(store, Rules()).reduced
    manifests = {name.partition("/")[2] for name in written if name.startswith("snapshots/")}
    assert len(manifests) == 1
    assert not manifests & before
    assert set(store.list("snapshots")) == manifests | before - {f"{reduced}.json"}


def reduce_all_but_the_newest(snapshots, rules, now):
    return list(snapshots[-1:]), list(snapshots[:-1])


@pytest.mark.parametrize("after", range(3))
def test_a_reduction_that_is_interrupted_continues(site, tmp_path, monkeypatch, after):
    store = FolderStore(tmp_path / "backup")
    for _ in range(3):
        site.back_up(store.folder)
    for name in snapshot_names(store)[:2]:
        aged(store, name, 60)
    delete, deleted = FolderStore.delete, []

    def delete_some(self, name):
        if name.startswith("snapshots"):
            deleted.append(name)
            if len(deleted) > after:
                raise StorageError("the network is lost")
        delete(self, name)

    monkeypatch.setattr(FolderStore, "delete", delete_some)
    rules = Rules(30, 90, 0)
    if after < 2:
        with pytest.raises(StorageError, match="the network is lost"):
            prune(store, rules)
    monkeypatch.setattr(FolderStore, "delete", delete)
    prune(store, rules)
    left = read_snapshots(store)[0]
    assert [(one.sequence, one.parts) for one in left[:2]] == [(1, ["models"]), (2, ["models"])]
    assert left[2].parts == ["runs", "models", "data"]
    assert explain(verify(store), store) == ""
    before = contents(site.root / "models")
    shutil.rmtree(site.root)
    site.restore(store.folder, "1")
    assert contents(site.root / "models") == before


def test_a_lease_of_the_future_makes_no_blob_older(site, tmp_path):
    store = FolderStore(tmp_path / "backup")
    site.back_up(store.folder)
    store.write("blobs/00/" + "0" * 64, [b"of an interrupted backup"])
    store.write("leases/other.json", [b"{}"])
    os.utime(store.folder / "leases" / "other.json", (time.time() + 1e7,) * 2)
    assert prune(store, Rules()).blobs == 0


def test_nothing_is_removed_while_a_manifest_cannot_be_read(site, tmp_path):
    store = FolderStore(tmp_path / "backup")
    for _ in range(2):
        site.back_up(store.folder)
    path = store.folder / "snapshots" / f"{snapshot_names(store)[0]}.json"
    path.write_text(path.read_text()[:-10])
    with pytest.raises(StorageError, match="is damaged: .*; nothing was removed, as the blobs"):
        prune(store, Rules(0, 0, 0))
    assert len(read_snapshots(store)[0]) == 1
