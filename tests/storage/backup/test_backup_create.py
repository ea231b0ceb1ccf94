"""A backup holds what was there, uploads nothing twice, and fits together while trainings run."""

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from rlcar.errors import StorageError, UserError
from rlcar.runs.run import Run
from rlcar.storage import checkpoint
from rlcar.storage.backup import create as create_module
from rlcar.storage.backup import lease as lease_module
from rlcar.storage.backup import manifest as manifest_module
from rlcar.storage.backup import upload
from rlcar.storage.backup.create import create_snapshot, explain_lacking, plan_snapshot
from rlcar.storage.backup.lease import BusyError, leased
from rlcar.storage.backup.manifest import read_snapshot, snapshot_names
from rlcar.storage.backup.restore import Selection, restore
from rlcar.storage.backup.store import BucketStore, FolderStore, open_store
from rlcar.storage.backup.upload import StoppedError
from tests.storage.backup.conftest import Site, contents, save_at
from tests.support.tiny_run import make_tiny_config


def paths(created):
    return {file.path for file in created.snapshot.files}


def lacking(created):
    return [f"{one.path}: {one.reason}" for one in created.snapshot.lacking]


def test_what_is_deleted_comes_back_with_its_bytes_modes_and_times(site, target):
    before = contents(site.root)
    created = site.back_up(target)
    assert created.snapshot.parts == ["runs", "models", "data"]
    assert not created.warnings
    shutil.rmtree(site.root)
    site.restore(target)
    assert contents(site.root) == before


def test_a_second_backup_uploads_only_what_is_new(site, target):
    first = site.back_up(target).snapshot
    assert first.uploaded_bytes > 0
    second = site.back_up(target).snapshot
    assert (second.uploaded_blobs, second.uploaded_bytes) == (0, 0)
    assert second.files == first.files
    (site.root / "data" / "laps" / "part-1.parquet").write_bytes(b"new")
    third = site.back_up(target).snapshot
    assert (third.uploaded_blobs, third.uploaded_bytes) == (1, 3)


def test_files_with_the_same_bytes_are_uploaded_once(site, target):
    site.back_up(target)
    shutil.copytree(site.root / "runs" / "first", site.root / "runs" / "copy")
    created = site.back_up(target)
    assert created.snapshot.uploaded_blobs == 0
    assert "runs/copy/config.json" in paths(created)


def test_unchanged_files_are_not_read_unless_asked_to(site, tmp_path, monkeypatch):
    site.back_up(tmp_path / "backup")
    read = []
    put = upload.Uploader._put
    monkeypatch.setattr(
        upload.Uploader, "_put", lambda self, file, size: read.append(size) or put(self, file, size)
    )
    assert site.back_up(tmp_path / "backup").snapshot.uploaded_blobs == 0
    assert read == []
    created = site.back_up(tmp_path / "backup", should_hash_all=True)
    assert len(read) == len(created.snapshot.files)


def test_a_change_that_keeps_size_and_time_is_noticed(site, tmp_path):
    path = site.root / "data" / "laps" / "part-0.parquet"
    site.back_up(tmp_path / "backup")
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert site.back_up(tmp_path / "backup").snapshot.uploaded_blobs == 1


def test_what_an_interrupted_upload_left_is_uploaded_again(site, target):
    created = site.back_up(target)
    digest = next(f.sha256 for f in created.snapshot.files if f.path.endswith("part-0.parquet"))
    store = open_store(target)
    store.write(f"blobs/{digest[:2]}/{digest}", [b"half"])
    assert site.back_up(target).snapshot.uploaded_blobs == 1
    shutil.rmtree(site.root)
    site.restore(target)


def test_an_interrupted_backup_is_no_snapshot_and_its_uploads_are_kept(site, target):
    counts = upload.Counts()
    with pytest.raises(StoppedError):
        site.back_up(target, counts=counts, should_stop=lambda: counts.uploaded_blobs >= 3)
    store = open_store(target)
    assert snapshot_names(store) == []
    blobs = store.list("blobs")
    assert len(blobs) >= 3
    whole = site.back_up(target).snapshot
    assert whole.uploaded_blobs == len(store.list("blobs")) - len(blobs)


def test_unfinished_files_are_left_out(site, tmp_path):
    run = site.root / "runs" / "first"
    for name in (".writing-1", ".clock-7", ".claim-000000001"):
        (run / name).write_text("x")
    (site.root / "runs" / "lost+found").mkdir()
    (run / "checkpoints" / ".saving-step-000000300").mkdir()
    (run / "checkpoints" / ".saving-step-000000300" / "state.safetensors").write_text("half")
    (run / "checkpoints" / "step-000000400").mkdir()
    (run / "checkpoints" / "step-000000400" / "meta.json").write_text("without DONE")
    created = site.back_up(tmp_path / "backup")
    assert not [
        path for path in paths(created) if "/." in path or "000400" in path or "lost" in path
    ]
    assert not created.warnings


def test_a_save_without_one_that_it_needs_is_left_out_and_named(site, tmp_path):
    shutil.rmtree(site.root / "runs" / "first" / "checkpoints" / "step-000000100")
    created = site.back_up(tmp_path / "backup")
    assert not [path for path in paths(created) if "checkpoints/step-" in path]
    assert lacking(created) == [
        "runs/first/checkpoints/step-000000200: step-000000100, which it needs, is missing"
    ]


def test_a_save_that_is_damaged_at_its_source_is_kept_with_a_warning(site, tmp_path):
    path = site.root / "runs" / "first" / "best" / "step-000000150" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    created = site.back_up(tmp_path / "backup")
    assert "runs/first/best/step-000000150/state.safetensors" in paths(created)
    assert "it is damaged where it was read" in created.warnings[0]


def test_a_file_that_grows_is_backed_up_as_it_was_at_the_beginning(site, tmp_path, monkeypatch):
    metrics = site.root / "runs" / "first" / "metrics.jsonl"
    size_bytes = metrics.stat().st_size
    put = upload.Uploader._put

    def put_while_it_grows(self, file, size):
        if file.name == str(metrics) or os.path.samestat(os.fstat(file.fileno()), metrics.stat()):
            with metrics.open("a") as more:
                more.write('{"env_steps": 2}\n')
        return put(self, file, size)

    monkeypatch.setattr(upload.Uploader, "_put", put_while_it_grows)
    created = site.back_up(tmp_path / "backup")
    entry = next(f for f in created.snapshot.files if f.path.endswith("metrics.jsonl"))
    assert entry.size_bytes == size_bytes
    assert not created.warnings


def test_a_file_that_keeps_changing_is_skipped_and_named(site, tmp_path, monkeypatch):
    changing = site.root / "data" / "laps" / "part-0.parquet"
    put = upload.Uploader._put

    def put_while_it_changes(self, file, size):
        if os.path.samestat(os.fstat(file.fileno()), changing.stat()):
            changing.write_bytes(os.urandom(size + 1))
        return put(self, file, size)

    monkeypatch.setattr(upload.Uploader, "_put", put_while_it_changes)
    created = site.back_up(tmp_path / "backup")
    assert created.reread == 3
    assert lacking(created) == [
        "data/laps/part-0.parquet: it changed each time it was read",
    ]
    assert "data/laps/part-0.parquet" not in paths(created)


def test_links_are_not_followed_and_named(site, tmp_path):
    (site.root / "data" / "link").symlink_to("/etc")
    os.mkfifo(site.root / "data" / "fifo")
    created = site.back_up(tmp_path / "backup")
    assert lacking(created) == [
        "data/fifo: it is not a regular file",
        "data/link: it is a symbolic link, which is not followed",
    ]


def test_a_link_inside_a_checkpoint_costs_nothing_but_itself(site, tmp_path):
    checkpoints = site.root / "runs" / "first" / "checkpoints"
    (checkpoints / "step-000000200" / "link").symlink_to("/etc/hostname")
    (checkpoints / "step-000000300").symlink_to("step-000000200")
    created = site.back_up(tmp_path / "backup")
    assert lacking(created) == [
        "runs/first/checkpoints/step-000000200/link: it is a symbolic link, which is not followed",
        "runs/first/checkpoints/step-000000300: it is a symbolic link, which is not followed",
    ]
    assert "runs/first/checkpoints/step-000000200/DONE" in paths(created)
    assert not [path for path in paths(created) if "step-000000300" in path]


def test_what_is_lacking_is_one_line_whatever_the_names(site):
    for number in range(7):
        (site.root / "data" / f"line\nbreak\x1b[31m{number}").symlink_to("/etc")
    said = explain_lacking(site.back_up(site.root.parent / "backup").snapshot)
    assert said.isprintable()
    assert "lacks 7 files or folders: data/line\\nbreak\\x1b[31m0: it is a symbolic link" in said
    assert said.endswith("; and 2 more")


def test_names_with_line_breaks_come_back(site, target):
    (site.root / "data" / "line\nbreak\t\x1b[31m").write_text("x")
    before = contents(site.root)
    site.back_up(target)
    shutil.rmtree(site.root)
    site.restore(target)
    assert contents(site.root) == before


def test_a_name_that_is_no_text_is_skipped_and_named(site, tmp_path):
    with open(os.fsencode(site.root / "data") + b"/\xff", "wb"):
        pass
    created = site.back_up(tmp_path / "backup")
    assert lacking(created) == ["data/\\udcff: its name is not UTF-8"]


def test_a_folder_whose_name_is_no_text_is_skipped_and_named(site, tmp_path):
    os.mkdir(os.fsencode(site.root / "data") + b"/\xff")
    with open(os.fsencode(site.root / "data") + b"/\xff/file", "wb"):
        pass
    created = site.back_up(tmp_path / "backup")
    assert lacking(created) == ["data/\\udcff: its name is not UTF-8"]


def test_the_root_of_a_volume_may_hold_the_backup(site, tmp_path):
    (tmp_path / "volume" / "lost+found").mkdir(parents=True)
    (tmp_path / "volume" / "lost+found" / "#123").write_text("what fsck has found")
    assert site.back_up(tmp_path / "volume").snapshot.sequence == 1


def test_a_training_that_saves_and_deletes_meanwhile_leaves_a_whole_checkpoint(site, tmp_path):
    """Each snapshot holds a sound newest checkpoint, and every row before it."""
    run, over = site.root / "runs" / "busy", threading.Event()
    written = threading.Event()

    def save_and_delete():
        with Run(run, make_tiny_config()) as writer:
            for env_steps in range(1000, 10**9, 1000):
                if over.is_set():
                    return
                writer.log(env_steps, env_steps)
                save_at(writer.checkpoints, env_steps, value=env_steps)
                checkpoint.keep(writer.checkpoints, 2)
                written.set()

    thread = threading.Thread(target=save_and_delete)
    thread.start()
    try:
        assert written.wait(60)
        for number in range(1, 6):
            site.back_up(tmp_path / "backup")
            folder = tmp_path / f"restored{number}"
            targets = {part: folder / part for part in site.sources}
            store = open_store(str(tmp_path / "backup"))
            restore(store, "latest", Selection(targets, ["runs"]))
            newest = checkpoint.latest(folder / "runs" / "busy" / "checkpoints")
            assert newest is not None
            assert checkpoint.damage(newest) == ""
            rows = (folder / "runs" / "busy" / "metrics.jsonl").read_text()
            assert f'"env_steps": {newest.env_steps},' in rows
    finally:
        over.set()
        thread.join()


def test_an_alias_always_points_at_a_version_of_the_same_snapshot(site, tmp_path):
    """A registry publishes, promotes and deletes while it is backed up."""
    models, over = site.root / "models", threading.Event()

    def publish_and_delete():
        for number in range(2, 10**6):
            if over.wait(0.005):
                return
            version = models / "versions" / f"{number:08d}"
            version.mkdir()
            (version / "manifest.json").write_text(str(number))
            alias = models / "aliases" / "champion"
            (alias / f"{number:08d}-{'0' * 32}.json").write_text(f'{{"version": {number}}}')
            if number > 2:
                shutil.rmtree(models / "versions" / f"{number - 1:08d}")

    thread = threading.Thread(target=publish_and_delete)
    thread.start()
    try:
        for _ in range(5):
            created = site.back_up(tmp_path / "backup")
            names = paths(created)
            newest = max(name for name in names if "/aliases/" in name)
            number = newest.rpartition("/")[2][:8]
            is_whole = f"models/versions/{number}/manifest.json" in names
            assert is_whole or any("kept changing" in one for one in lacking(created))
    finally:
        over.set()
        thread.join()


@pytest.fixture
def nobody():
    """A folder for everybody, and this process without the rights of root."""
    if os.geteuid() != 0:
        pytest.skip("needs root, which can become another user")
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="rlcar-nobody-"))
    os.chmod(folder, 0o777)
    site = Site(folder / "site")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.callback(os.seteuid, 0)
        yield site, lambda: os.seteuid(65534)


def test_what_may_not_be_read_is_named_and_the_rest_is_backed_up(nobody):
    site, become_nobody = nobody
    os.chmod(site.root / "data" / "laps" / "part-0.parquet", 0)
    os.chmod(site.root / "runs" / "first" / "best", 0)
    become_nobody()
    created = site.back_up(site.root.parent / "backup")
    assert lacking(created) == [
        "data/laps/part-0.parquet: Permission denied",
        "runs/first/best: Permission denied",
    ]
    assert "runs/first/config.json" in paths(created)


def test_a_part_that_may_not_be_read_is_never_left_out_in_silence(nobody):
    site, become_nobody = nobody
    os.chmod(site.root / "models", 0)
    become_nobody()
    for act in (site.back_up, lambda target: plan_snapshot(open_store(str(target)), site.sources)):
        with pytest.raises(UserError, match="cannot read .*/models: Permission denied"):
            act(site.root.parent / "backup")


def test_a_place_without_permission_is_one_sentence(nobody):
    site, become_nobody = nobody
    site.back_up(site.root.parent / "backup")
    os.chmod(site.root.parent, 0o755)
    become_nobody()
    for act in (site.back_up, site.restore):
        with pytest.raises(StorageError, match="Permission denied; run it as a user who may"):
            act(site.root.parent / "backup")
    with pytest.raises(StorageError, match="cannot write .*: Permission denied; run it as a user"):
        site.back_up(site.root.parent / "other")


def test_an_empty_source_is_one_sentence(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="there is nothing to back up: .*/runs hold no file"):
        create_snapshot(open_store(str(tmp_path / "backup")), {"runs": tmp_path / "runs"})
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("where", ["runs/backup", "runs", "."])
def test_a_target_inside_a_source_or_around_it_is_one_sentence(site, where):
    with pytest.raises(UserError, match="must not contain each other: choose a target elsewhere"):
        site.back_up(site.root / where)


def test_a_target_with_other_files_is_one_sentence(site, tmp_path):
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "letter.txt").write_text("x")
    with pytest.raises(StorageError, match="holds other files .letter.txt. and no backup"):
        site.back_up(tmp_path / "backup")
    with pytest.raises(StorageError, match="Not a directory"):
        site.back_up(tmp_path / "backup" / "letter.txt")


def test_a_source_that_has_become_empty_is_one_sentence(site, target):
    site.back_up(target)
    shutil.rmtree(site.root / "runs")
    (site.root / "runs").mkdir()
    with pytest.raises(UserError, match="now there is nothing in .*/runs: is its disk mounted"):
        site.back_up(target)
    created = site.back_up(target, may_lack_parts=True)
    assert created.snapshot.parts == ["models", "data"]


def test_two_backups_at_once_are_one_sentence(site, target):
    store = open_store(target)
    site.back_up(target)
    with (
        leased(store, "backup"),
        pytest.raises(BusyError, match=r"process \d+ of the host .* makes a backup in"),
    ):
        site.back_up(target)
    site.back_up(target)
    assert store.list("leases") == {}


def test_a_lease_of_a_process_that_is_gone_is_removed(site, target):
    store = open_store(target)
    site.back_up(target)
    gone = json.dumps({"purpose": "backup", "pid": 999_999_999, "host": os.uname().nodename})
    store.write("leases/old.json", [gone.encode()])
    site.back_up(target)
    assert store.list("leases") == {}


def lease_elsewhere(store, host="elsewhere"):
    info = {"purpose": "backup", "pid": 1, "host": host}
    store.write("leases/elsewhere.json", [json.dumps(info).encode()])


def test_a_lease_of_another_host_that_has_died_expires(site, target, monkeypatch):
    site.back_up(target)
    monkeypatch.setattr(lease_module, "POLL_S", 0.2)
    monkeypatch.setattr(lease_module, "EXPIRES_S", 2.0)
    store = open_store(target)
    lease_elsewhere(store)
    assert site.back_up(target).snapshot.sequence == 2
    assert store.list("leases") == {}


def test_a_lease_of_the_future_expires_as_well(site, tmp_path, monkeypatch):
    """The clock of a file server was wrong for a while."""
    site.back_up(tmp_path / "backup")
    monkeypatch.setattr(lease_module, "POLL_S", 0.2)
    monkeypatch.setattr(lease_module, "EXPIRES_S", 1.0)
    store = FolderStore(tmp_path / "backup")
    lease_elsewhere(store)
    (lease,) = (store.folder / "leases").iterdir()
    os.utime(lease, (time.time() + 365 * 86_400,) * 2)
    started_s = time.monotonic()
    assert site.back_up(store.folder).snapshot.sequence == 2
    assert time.monotonic() - started_s > 1.0
    assert store.list("leases") == {}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        '{"purpose": ["backup"], "pid": 1}',
        '{"purpose": "backup", "pid": "1"}',
        json.dumps({"purpose": "backup", "pid": 10**30, "host": os.uname().nodename}),
        json.dumps({"purpose": "backup", "pid": -1, "host": os.uname().nodename}),
        "\xff",
    ],
)
def test_a_lease_that_is_none_holds_nothing(site, tmp_path, text):
    site.back_up(tmp_path / "backup")
    FolderStore(tmp_path / "backup").write("leases/hostile.json", [text.encode("latin1")])
    assert site.back_up(tmp_path / "backup").snapshot.sequence == 2


def test_a_lease_cannot_write_to_the_terminal(site, tmp_path, monkeypatch):
    site.back_up(tmp_path / "backup")
    monkeypatch.setattr(lease_module, "_pause", lambda: lease_elsewhere(store, "evil\x1b[2J\n"))
    store = FolderStore(tmp_path / "backup")
    lease_elsewhere(store, "evil\x1b[2J\n")
    with pytest.raises(BusyError) as raised:
        site.back_up(store.folder)
    assert str(raised.value).isprintable()


def test_a_snapshot_that_could_not_be_read_again_is_not_written(site, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_module, "_MAX_MANIFEST_BYTES", 1000)
    with pytest.raises(StorageError, match="its manifest would have .* of the 1,000 allowed"):
        site.back_up(tmp_path / "backup")
    assert snapshot_names(FolderStore(tmp_path / "backup")) == []


def test_more_files_than_a_manifest_can_name_are_refused_before_the_upload(
    site, tmp_path, monkeypatch
):
    monkeypatch.setattr(manifest_module, "_MAX_FILES", 2)
    with pytest.raises(UserError, match=r"the folders hold \d+ files, more than the 2 of one"):
        site.back_up(tmp_path / "backup")
    assert not FolderStore(tmp_path / "backup").list("blobs")


def test_a_large_object_whose_source_changed_is_never_of_the_right_size(bucket, monkeypatch):
    """Even if it cannot be deleted, as when the process is killed at that moment."""
    store = open_store(bucket)
    monkeypatch.setattr(BucketStore, "delete", lambda self, name: None)
    chunks = [bytes(1 << 20) for _ in range(12)]
    assert not store.write("blobs/00/changed", chunks, "0" * 64)
    assert store.list("blobs")["00/changed"].size_bytes == 11 << 20


def test_a_lease_of_another_host_that_is_renewed_is_one_sentence(site, target, monkeypatch):
    site.back_up(target)
    store = open_store(target)
    lease_elsewhere(store)

    def renew_meanwhile():
        time.sleep(1.1)  # moto's times have whole seconds
        lease_elsewhere(store)

    monkeypatch.setattr(lease_module, "_pause", renew_meanwhile)
    with pytest.raises(BusyError, match="process 1 of the host elsewhere makes a backup in"):
        site.back_up(target)
    assert list(store.list("leases")) == ["elsewhere.json"]


def test_a_lost_lease_makes_no_snapshot(site, target, monkeypatch):
    """Another process has taken this one for dead while it was suspended."""
    store = open_store(target)
    read = create_module._read

    def read_and_lose_the_lease(*arguments):
        capture = read(*arguments)
        for name in store.list("leases"):
            store.delete(f"leases/{name}")
        return capture

    monkeypatch.setattr(create_module, "_read", read_and_lose_the_lease)
    with pytest.raises(StorageError, match="another one has removed its lease"):
        site.back_up(target)
    assert snapshot_names(store) == []


def test_the_order_of_snapshots_does_not_depend_on_the_clock(site, tmp_path, monkeypatch):
    store = FolderStore(tmp_path / "backup")
    site.back_up(tmp_path / "backup")
    real_now = create_module.now_utc
    monkeypatch.setattr(create_module, "now_utc", lambda: real_now() - timedelta(days=400))
    created = site.back_up(tmp_path / "backup")
    assert "is dated in the future" in created.warnings[0]
    assert snapshot_names(store)[-1] == created.snapshot.name
    assert read_snapshot(store, snapshot_names(store)[-1]).sequence == 2


def test_a_plan_reads_and_writes_nothing(site, tmp_path):
    store = open_store(str(tmp_path / "backup"))
    plan = plan_snapshot(store, site.sources)
    assert plan.files == plan.new_files > 5
    assert not (tmp_path / "backup").exists()
    created = site.back_up(tmp_path / "backup")
    assert plan.size_bytes == created.snapshot.size_bytes
    assert plan_snapshot(store, site.sources).new_files == 0


def test_only_the_owner_can_read_a_backup(site, tmp_path):
    site.back_up(tmp_path / "backup")
    for path in (tmp_path / "backup").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_large_file_is_never_wholly_in_memory(site, tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "_IN_MEMORY_BYTES", 1 << 10)
    sizes = []
    write = FolderStore.write

    def write_and_measure(self, name, chunks, sha256=None):
        return write(self, name, (sizes.append(len(one)) or one for one in chunks), sha256)

    monkeypatch.setattr(FolderStore, "write", write_and_measure)
    big = site.root / "data" / "big.bin"
    big.write_bytes(os.urandom(5 << 20))
    site.back_up(tmp_path / "backup")
    assert max(sizes) == 1 << 20
    before = contents(site.root / "data")
    shutil.rmtree(site.root)
    site.restore(tmp_path / "backup")
    assert contents(site.root / "data") == before


def test_a_target_that_may_not_be_written_is_one_sentence(site):
    with pytest.raises(StorageError, match=r"cannot write /proc/backup/.*: No such file"):
        site.back_up(Path("/proc/backup"))
