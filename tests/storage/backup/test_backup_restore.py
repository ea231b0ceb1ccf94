"""A restoration brings back what was asked for, checked, and never over what is there."""

import json
import os
import shutil
import tracemalloc
from hashlib import sha256

import pytest

from rlcar.errors import StorageError, UserError
from rlcar.storage.backup import restore as restore_module
from rlcar.storage.backup.create import create_snapshot
from rlcar.storage.backup.manifest import SNAPSHOTS, read_snapshot, snapshot_names
from rlcar.storage.backup.restore import Selection, restore
from rlcar.storage.backup.store import FolderStore, open_store
from rlcar.storage.backup.upload import Counts, StoppedError
from rlcar.storage.backup.verify import discard, explain, verify
from tests.storage.backup.conftest import contents
from tests.support.small_disk import mounted_disk


@pytest.fixture
def backup(site, tmp_path):
    site.back_up(tmp_path / "backup")
    return tmp_path / "backup"


def blob_of(backup, path):
    store = FolderStore(backup)
    snapshot = read_snapshot(store, snapshot_names(store)[-1])
    digest = next(file.sha256 for file in snapshot.files if file.path == path)
    return backup / "blobs" / digest[:2] / digest


STATE = "runs/first/checkpoints/step-000000200/state.safetensors"


def test_parts_and_runs_are_restored_alone(site, backup, tmp_path):
    shutil.copytree(site.root / "runs" / "first", site.root / "runs" / "second")
    site.back_up(backup)
    before = contents(site.root)
    shutil.rmtree(site.root)
    site.restore(backup, runs=["second"])
    assert sorted(path.name for path in (site.root / "runs").iterdir()) == ["second"]
    assert not (site.root / "models").exists()
    site.restore(backup, parts=["models"])
    assert not (site.root / "data").exists()
    site.restore(backup, runs=["first"])
    site.restore(backup, parts=["data"])
    assert contents(site.root) == before


def test_an_older_snapshot_is_restored_by_its_number_or_name(site, backup, tmp_path):
    file = site.root / "data" / "laps" / "part-0.parquet"
    old = file.read_bytes()
    file.write_bytes(b"new")
    site.back_up(backup)
    names = snapshot_names(FolderStore(backup))
    for wanted in ("1", "000001", names[0]):
        site.restore(backup, wanted, parts=["data"], may_overwrite=True)
        assert file.read_bytes() == old
    with pytest.raises(StorageError, match=f"no snapshot '9' in .*; there are: {names[0]}, "):
        site.restore(backup, "9")


def test_what_exists_is_never_touched_without_overwrite(site, backup):
    (site.root / "runs" / "first" / "mine.txt").write_text("mine")
    shutil.rmtree(site.root / "data")
    before = contents(site.root)
    with pytest.raises(
        UserError, match=r"runs/first \(and 2 more\) exists already: .*--to.*--over"
    ):
        site.restore(backup)
    assert contents(site.root) == before
    site.restore(backup, may_overwrite=True)
    assert not (site.root / "runs" / "first" / "mine.txt").exists()
    assert not list(site.root.rglob(".restoring-*"))


def test_what_appears_during_the_restoration_is_not_touched_either(site, backup):
    shutil.rmtree(site.root)
    new = site.root / "runs" / "first" / "mine.txt"

    def begin_a_training():
        new.parent.mkdir(exist_ok=True)
        new.write_text("mine")
        return False

    selection = Selection(site.sources, parts=["runs"])
    with pytest.raises(UserError, match="runs/first exists already"):
        restore(open_store(str(backup)), "latest", selection, should_stop=begin_a_training)
    assert new.read_text() == "mine"
    assert [path.name for path in new.parent.iterdir()] == ["mine.txt"]


def test_tokens_under_another_name_leave_their_neighbours_alone(site, backup):
    tokens = site.root / "tokens.json"
    tokens.write_text("old")
    sources = site.sources | {"tokens": tokens}
    create_snapshot(open_store(str(backup)), sources)
    tokens.write_text("new")
    targets = site.sources | {"tokens": site.root / "restored.json"}
    selection = Selection(targets, parts=["tokens"])
    restore(open_store(str(backup)), "latest", selection)
    assert (site.root / "restored.json").read_text() == "old"
    assert tokens.read_text() == "new"


def test_what_an_interrupted_restoration_has_written_needs_no_space_again(
    site, backup, monkeypatch
):
    shutil.rmtree(site.root)
    monkeypatch.setattr(restore_module, "_place", lambda *_: None)
    monkeypatch.setattr(restore_module.shutil, "rmtree", lambda *_, **__: None)
    site.restore(backup)
    monkeypatch.undo()
    full = os.statvfs(site.root)
    full = os.statvfs_result((*full[:4], 0, *full[5:]))
    monkeypatch.setattr(restore_module.os, "statvfs", lambda _: full)
    site.restore(backup)
    assert (site.root / "runs" / "first" / "run.json").is_file()


def test_an_empty_folder_is_no_data(site, backup):
    shutil.rmtree(site.root)
    for part in ("runs", "models", "data"):
        (site.root / part).mkdir(parents=True)
    (site.root / "runs" / "first").mkdir()
    site.restore(backup)
    assert (site.root / "runs" / "first" / "config.json").exists()


def test_aliases_of_another_registry_do_not_stay(site, backup):
    shutil.rmtree(site.root / "models" / "aliases")
    site.back_up(backup)
    other = site.root / "models" / "aliases" / "champion"
    other.mkdir(parents=True)
    (other / f"00000009-{'1' * 32}.json").write_text('{"version": 9}')
    site.restore(backup, parts=["models"], may_overwrite=True)
    assert not (site.root / "models" / "aliases").exists()


def test_an_interrupted_restoration_continues(site, target, monkeypatch):
    site.back_up(target)
    before = contents(site.root)
    shutil.rmtree(site.root)
    counts, store = Counts(), open_store(target)
    selection = Selection(site.sources)
    with pytest.raises(StoppedError):
        restore(
            store,
            "latest",
            selection,
            counts=counts,
            should_stop=lambda: counts.done_bytes > 2000,
        )
    assert not (site.root / "runs" / "first").exists()
    fetched = []
    chunks = type(store).chunks
    monkeypatch.setattr(
        type(store), "chunks", lambda self, name: fetched.append(name) or chunks(self, name)
    )
    site.restore(target)
    blobs = {name for name in fetched if name.startswith("blobs/")}
    assert 0 < len(blobs) < len(store.list("blobs"))
    assert contents(site.root) == before


@pytest.mark.parametrize("after", range(6))
def test_a_restoration_that_is_killed_while_it_renames_continues(site, backup, monkeypatch, after):
    """It stops after each number of renames in turn, and is repeated."""
    (site.root / "runs" / "first" / "mine.txt").write_text("to be replaced")
    site.back_up(backup)
    before = contents(site.root)
    (site.root / "runs" / "first" / "mine.txt").write_text("changed")
    renamed = []
    real = os.replace

    def replace_some(source, target):
        if "/new/" in str(source) or "/old/" in str(target):
            if len(renamed) == after:
                raise KeyboardInterrupt
            renamed.append(target)
        real(source, target)

    monkeypatch.setattr(restore_module.os, "replace", replace_some)
    with pytest.raises(KeyboardInterrupt):
        site.restore(backup, may_overwrite=True)
    monkeypatch.setattr(restore_module.os, "replace", real)
    site.restore(backup, may_overwrite=True)
    assert contents(site.root) == before


def test_a_run_in_training_is_not_replaced(site, backup):
    from rlcar.system import process_state

    info = process_state.describe("running") | {"pid": 1, "start_ticks": None, "lease": 1}
    info["start_ticks"] = process_state._start_ticks(1)
    process_state.write(site.root / "runs" / "first", info)
    with pytest.raises(UserError, match="cannot be replaced: it is being trained by process 1 of"):
        site.restore(backup, may_overwrite=True, parts=["runs"])


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(site, backup, tmp_path):
    with mounted_disk(tmp_path / "small", size_kb=12) as disk:
        selection = Selection({part: disk / part for part in site.sources}, ["runs", "data"])
        with pytest.raises(UserError, match="bytes free, and .* are to be restored: free space"):
            restore(open_store(str(backup)), "latest", selection)
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("free_kb", [0, 8])
def test_a_full_target_is_one_sentence_and_leaves_no_snapshot(site, tmp_path, free_kb):
    with mounted_disk(tmp_path / "disk", size_kb=512) as disk:
        site.back_up(disk / "backup")
        status = os.statvfs(disk)
        ballast = status.f_bavail * status.f_frsize - free_kb * 1024
        (disk / "ballast").write_bytes(bytes(ballast))
        (site.root / "data" / "big").write_bytes(os.urandom(100_000))
        with pytest.raises(StorageError, match="No space left on device; the snapshots before are"):
            site.back_up(disk / "backup")
        store = FolderStore(disk / "backup")
        assert len(snapshot_names(store)) == 1
        assert not list((disk / "backup").rglob(".writing-*"))
        (disk / "ballast").unlink()
        site.back_up(disk / "backup")
    assert len(contents(site.root)) > 5


def damage_by(kind, blob):
    if kind == "missing":
        blob.unlink()
    elif kind == "truncated":
        blob.write_bytes(blob.read_bytes()[:-1])
    elif kind == "longer":
        blob.write_bytes(blob.read_bytes() + b"x")
    else:
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.write_bytes(data)


@pytest.mark.parametrize("kind", ["missing", "truncated", "longer", "flipped"])
def test_a_damaged_blob_names_what_is_lost_and_the_rest_comes_back(site, backup, kind):
    damage_by(kind, blob_of(backup, STATE))
    shutil.rmtree(site.root)
    with pytest.raises(UserError, match=f"1 files of snapshot .* are damaged.*{STATE}") as raised:
        site.restore(backup)
    assert "not restored: runs/first; --skip-damaged restores the other" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (site.root / "runs" / "first").exists()
    assert (site.root / "data" / "laps" / "part-0.parquet").exists()
    site.restore(backup, parts=["runs"], may_lose=True)
    run = site.root / "runs" / "first"
    assert (run / "checkpoints" / "step-000000100" / "state.safetensors").exists()
    assert not (site.root / STATE).exists()


def test_an_older_snapshot_that_is_whole_is_named(site, backup):
    state = site.root / "runs" / "first" / "metrics.jsonl"
    state.write_text("more rows\n")
    site.back_up(backup)
    blob_of(backup, "runs/first/metrics.jsonl").unlink()
    shutil.rmtree(site.root)
    name = snapshot_names(FolderStore(backup))[0]
    with pytest.raises(UserError, match=f"snapshot {name} still has all of it: rlcar restore"):
        site.restore(backup)
    site.restore(backup, name, parts=["runs"])
    assert state.read_text() == '{"env_steps": 1}\n'


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        *(("folder", kind) for kind in ("missing", "truncated", "longer", "flipped")),
        *(("bucket", kind) for kind in ("missing", "flipped")),
    ],
    indirect=["target"],
)
def test_verify_finds_every_damage_and_the_next_backup_repairs_it(site, target, kind):
    site.back_up(target)
    store = open_store(target)
    assert explain(verify(store), store) == ""
    snapshot = read_snapshot(store, snapshot_names(store)[0])
    digest = next(file.sha256 for file in snapshot.files if file.path == STATE)
    name = f"blobs/{digest[:2]}/{digest}"
    data = b"".join(store.chunks(name))
    wrong = {"truncated": data[:-1], "longer": data + b"x", "flipped": b"\x01" + data[1:]}
    store.delete(name) if kind == "missing" else store.write(name, [wrong[kind]])
    checked = verify(store)
    assert list(checked.damaged) == [digest]
    assert checked.lost == {snapshot.name: [STATE]}
    assert f"has lost {STATE}" in explain(checked, store)
    discard(store, checked.damaged)
    assert site.back_up(target).snapshot.uploaded_blobs == 1
    assert explain(verify(store), store) == ""


def test_a_blob_that_could_not_be_read_once_is_not_discarded(site, tmp_path):
    """As after an error of a disk or a network that has recovered."""
    site.back_up(tmp_path / "backup")
    store = open_store(str(tmp_path / "backup"))
    snapshot = read_snapshot(store, snapshot_names(store)[0])
    assert discard(store, [file.sha256 for file in snapshot.files]) == 0
    assert explain(verify(store), store) == ""


def rewritten(backup, change):
    """Changes the newest manifest, and makes its checksum right again, as an attacker would."""
    (path,) = (backup / SNAPSHOTS).iterdir()
    tree = json.loads(path.read_text())["snapshot"]
    change(tree)
    inner = json.dumps(tree, separators=(",", ":"))
    digest = sha256(inner.encode()).hexdigest()
    path.write_text(f'{{"sha256": "{digest}", "snapshot": {inner}}}\n')


def with_path(path):
    return lambda tree: tree["files"][0].update(path=path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_path("../outside"), "leads out of the backup"),
        (with_path("runs/../../outside"), "leads out of the backup"),
        (with_path("/etc/passwd"), "leads out of the backup"),
        (with_path("runs/a//b"), "leads out of the backup"),
        (with_path("runs/./b"), "leads out of the backup"),
        (with_path("runs/a\0b"), "leads out of the backup"),
        (with_path("etc/passwd"), "leads out of the backup"),
        (with_path("runs/" + "x" * 5000), "leads out of the backup"),
        (with_path("runs/.restoring-000001-20260101T000000Z-abcd/x"), "that no backup writes"),
        (with_path("runs/" + "x" * 300), "that no backup writes"),
        (with_path("runs/\ud800"), "files.0.path"),
        (with_path("runs/first/config.json/x"), "is a file and a folder"),
        (with_path("runs/first"), "is a file and a folder"),
        (lambda tree: tree["files"].append(tree["files"][0]), "names a path twice"),
        (lambda tree: tree["files"][0].update(mode=0o4755), "less than or equal to 511"),
        (lambda tree: tree["files"][0].update(size_bytes=1 << 60), "less than or equal to"),
        (lambda tree: tree["files"][0].update(size_bytes=-1), "greater than or equal to 0"),
        (lambda tree: tree["files"][0].update(size_bytes=1.5), "valid integer"),
        (lambda tree: tree["files"][0].update(sha256="../../x"), "match pattern"),
        (lambda tree: tree["files"][0].update(link="/etc"), "Extra inputs are not permitted"),
        (lambda tree: tree.update(format_version=2), "has format version 2, and this rlcar reads"),
        (lambda tree: tree.update(parts=["etc"]), "holds unknown parts: etc"),
        (lambda tree: tree.update(name="000009-20260101T000000Z-abcd"), "calls itself 000009"),
        (lambda tree: tree.update(started="yesterday"), "is damaged"),
        (lambda tree: tree.pop("files"), "files: Field required"),
    ],
)
def test_a_hostile_manifest_is_refused_in_one_sentence(site, backup, tmp_path, change, reason):
    rewritten(backup, change)
    shutil.rmtree(site.root)
    before = contents(tmp_path)
    with pytest.raises(StorageError, match=reason) as raised:
        site.restore(backup)
    assert "\n" not in str(raised.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"sha256": "x"}', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused_in_one_sentence(site, backup, text):
    (path,) = (backup / SNAPSHOTS).iterdir()
    path.write_text(text)
    with pytest.raises(StorageError, match="is damaged") as raised:
        site.restore(backup)
    assert "\n" not in str(raised.value)
    # The next backup goes on, with a warning.
    assert "is damaged" in site.back_up(backup).warnings[0]


def test_of_a_million_errors_in_a_manifest_the_first_is_enough(site, backup):
    rewritten(backup, lambda tree: tree.update(files=[{}] * 1_000_000))
    tracemalloc.start()
    with pytest.raises(StorageError, match="is refused: files.0.path: Field required"):
        site.restore(backup)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 200 << 20


def test_a_flipped_bit_in_a_manifest_is_noticed(site, backup):
    (path,) = (backup / SNAPSHOTS).iterdir()
    path.write_text(path.read_text().replace('"bytes":', '"bytes":', 1).replace("vm", "vn"))
    path.write_text(path.read_text().replace("runs/first/run", "runs/first/rum"))
    with pytest.raises(StorageError, match="is damaged: its checksum differs"):
        site.restore(backup)


def test_in_place_of_a_damaged_snapshot_an_older_one_is_proposed(site, backup):
    site.back_up(backup)
    site.back_up(backup)
    first, second, _ = snapshot_names(FolderStore(backup))
    (backup / SNAPSHOTS / f"{second}.json").write_text("{")
    with pytest.raises(StorageError, match=f"restore an older one with --snapshot {first}$"):
        site.restore(backup, second)
    (backup / SNAPSHOTS / f"{first}.json").write_text("{")
    with pytest.raises(StorageError) as raised:
        site.restore(backup, first)
    assert "--snapshot" not in str(raised.value)


def test_a_link_in_place_of_a_blob_is_not_followed(site, backup, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    blob = blob_of(backup, "runs/first/metrics.jsonl")
    blob.unlink()
    blob.symlink_to(secret)
    shutil.rmtree(site.root)
    with pytest.raises(UserError, match="are damaged .*it is a symbolic link"):
        site.restore(backup)


def test_a_place_that_is_no_backup_is_one_sentence(site, tmp_path):
    for place in (tmp_path / "absent", site.root):
        with pytest.raises(StorageError, match="is not a backup: it has no rlcar-backup.json"):
            site.restore(place)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "rlcar-backup.json").write_text('{"format_version": 7}')
    for act in (site.restore, site.back_up):
        with pytest.raises(StorageError, match="has format version 7, and this rlcar reads 1"):
            act(tmp_path / "newer")


def test_what_a_snapshot_does_not_hold_is_one_sentence(site, backup):
    with pytest.raises(UserError, match="holds runs, models, data and not sweeps"):
        site.restore(backup, parts=["sweeps"])
    with pytest.raises(UserError, match="holds no run 'third'; it holds: first"):
        site.restore(backup, runs=["third"])


def test_two_restorations_at_once_are_one_sentence(site, backup):
    from rlcar.system import process_state

    shutil.rmtree(site.root)
    name = snapshot_names(FolderStore(backup))[0]
    staging = site.root / "runs" / f".restoring-{name}"
    staging.mkdir(parents=True)
    info = process_state.describe("running") | {"pid": 1, "lease": 1}
    process_state.write(staging, info | {"start_ticks": process_state._start_ticks(1)})
    with pytest.raises(UserError, match="another process restores into .*/runs: wait until"):
        site.restore(backup)
