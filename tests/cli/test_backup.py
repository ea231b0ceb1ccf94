"""`rlcar backup` and `rlcar restore` as a user types them."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from rlcar.registry import Registry
from rlcar.runs.retention import expire_checkpoints
from rlcar.storage.saves import saves
from tests.storage.backup.conftest import save_at

DAY_S = 86_400
GOLDEN = Path(__file__).parents[1] / "golden" / "formats"


@pytest.fixture
def site(rlcar, tmp_path):
    """Runs and data in the current folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "laps.parquet").write_bytes(b"laps")
    run = tmp_path / "runs" / "first"
    save_at(run / "checkpoints", 100)
    for name in ("config.json", "run.json"):
        (run / name).write_text("{}")
    return tmp_path


def figures(out):
    return dict(line.removeprefix("figure ").split("=") for line in out.splitlines())


def test_the_plain_commands_back_up_and_restore(rlcar, site):
    code, out, stderr = rlcar("backup", "copy")
    assert code == 0, stderr
    assert figures(out)["files"] == "7"
    assert "000001-" in rlcar("backup", "list", "copy")[1]
    code, out, _ = rlcar("backup", "list", "copy", "--json")
    assert json.loads(out)[0]["parts"] == ["runs", "data"]
    shutil.rmtree(site / "runs")
    shutil.rmtree(site / "data")
    code, out, stderr = rlcar("restore", "copy", "--dry-run")
    assert (code, figures(out)["files"]) == (0, "7")
    assert "would restore runs/first" in stderr
    assert not (site / "runs").exists()
    assert rlcar("restore", "copy")[0] == 0
    assert (site / "data" / "laps.parquet").read_bytes() == b"laps"
    code, out, stderr = rlcar("restore", "copy")
    assert (code, out) == (2, "")
    assert "exists already" in stderr
    assert rlcar("restore", "copy", "--to", "elsewhere")[0] == 0
    assert (site / "elsewhere" / "runs" / "first" / "run.json").exists()


def test_options_may_come_before_the_target_and_create_is_optional(rlcar, site):
    assert rlcar("backup", "--dry-run", "copy")[0] == 0
    assert not (site / "copy").exists()
    assert rlcar("backup", "create", "copy", "--verify", "--checksum")[0] == 0
    assert rlcar("backup", "verify", "copy", "--snapshot", "1")[0] == 0
    assert rlcar("backup", "prune", "copy", "--dry-run")[0] == 0


def test_the_state_and_the_metrics_tell_monitoring_what_happened(rlcar, site):
    assert rlcar("backup", "copy", "--metrics-file", "backup.prom")[0] == 0
    state = json.loads((site / "backup-state.json").read_text())
    assert abs(state["last_success_timestamp_seconds"] - time.time()) < 600
    assert (state["files"], state["consecutive_failures"], state["last_error"]) == (7, 0, None)
    blob = next(path for path in (site / "copy" / "blobs").rglob("*") if path.is_file())
    blob.chmod(0o600)
    blob.write_bytes(b"damaged")
    code, _, stderr = rlcar("backup", "verify", "copy", "--metrics-file", "backup.prom")
    assert code == 2
    assert "blobs of copy are damaged" in stderr
    assert "rlcar_backup_failures_total 1.0" in (site / "backup.prom").read_text()
    (site / "copy" / "rlcar-backup.json").write_text("{}")
    assert rlcar("backup", "copy", "--metrics-file", "backup.prom")[0] == 2
    failed = json.loads((site / "backup-state.json").read_text())
    assert failed["consecutive_failures"] == 1
    assert "is damaged" in failed["last_error"]
    assert failed["last_success_timestamp_seconds"] == state["last_success_timestamp_seconds"]


def test_what_was_left_out_is_an_error_unless_it_was_accepted(rlcar, site):
    (site / "data" / "link").symlink_to("/etc")
    code, out, stderr = rlcar("backup", "copy", "--metrics-file", "backup.prom")
    assert (code, figures(out)["skipped_files"]) == (2, "1")
    assert "lacks 1 files or folders: data/link: it is a symbolic link" in stderr
    assert "rlcar backup list copy --json names all of them" in stderr
    assert "rlcar_backup_skipped_files 1.0" in (site / "backup.prom").read_text()
    state = json.loads((site / "backup-state.json").read_text())
    assert (state["files"], state["consecutive_failures"]) == (7, 1)
    assert state["last_success_timestamp_seconds"] == 0
    listed = json.loads(rlcar("backup", "list", "copy", "--json")[1])
    assert listed[0]["skipped"][0]["path"] == "data/link"
    code, _, stderr = rlcar("backup", "copy", "--allow-skipped", "--metrics-file", "backup.prom")
    assert code == 0
    assert "warning: snapshot 000002" in stderr
    assert "rlcar_backup_skipped_files 1.0" in (site / "backup.prom").read_text()
    assert "rlcar_backup_consecutive_failures 0.0" in (site / "backup.prom").read_text()


def state_of(site):
    return json.loads((site / "backup-state.json").read_text())


def test_a_verification_that_cannot_be_made_is_recorded(rlcar, site):
    rlcar("backup", "copy")
    (site / "copy").rename(site / "gone")
    code, _, stderr = rlcar("backup", "verify", "copy", "--metrics-file", "backup.prom")
    assert (code, state_of(site)["failures_total"]) == (2, 1)
    assert "copy is not a backup" in state_of(site)["last_error"]
    assert "rlcar_backup_failures_total 1.0" in (site / "backup.prom").read_text()
    code, _, stderr = rlcar("backup", "verify", "s3://")
    assert (code, state_of(site)["failures_total"]) == (2, 2)
    assert state_of(site)["last_verify_timestamp_seconds"] == 0
    assert state_of(site)["consecutive_failures"] == 0


def test_only_a_verification_of_all_snapshots_counts_as_one(rlcar, site):
    rlcar("backup", "copy")
    (site / "data" / "more").write_text("x")
    assert rlcar("backup", "copy", "--verify")[0] == 0
    assert state_of(site)["last_verify_timestamp_seconds"] == 0
    assert rlcar("backup", "verify", "copy", "--snapshot", "latest")[0] == 0
    assert state_of(site)["last_verify_timestamp_seconds"] == 0
    assert rlcar("backup", "verify", "copy")[0] == 0
    assert state_of(site)["last_verify_timestamp_seconds"] > 0


def test_a_new_snapshot_that_is_damaged_is_one_failure(rlcar, site):
    rlcar("backup", "copy")
    for blob in (site / "copy" / "blobs").rglob("*"):
        if blob.is_file():
            blob.write_bytes(bytes(blob.stat().st_size))
    assert rlcar("backup", "copy", "--verify")[0] == 2
    assert (state_of(site)["failures_total"], state_of(site)["consecutive_failures"]) == (1, 1)


def test_runs_by_name_and_other_parts_are_two_restorations(rlcar, site):
    rlcar("backup", "copy")
    shutil.rmtree(site / "runs")
    shutil.rmtree(site / "data")
    words = ("restore", "copy", "--run", "first", "--only")
    code, _, stderr = rlcar(*words, "data")
    assert code == 2
    assert "--run first restores runs alone, and --only data asks for another part" in stderr
    assert not (site / "runs").exists()
    assert rlcar(*words, "runs")[0] == 0
    assert not (site / "data").exists()


def test_tokens_are_backed_up_and_restored_only_on_request(rlcar, site, monkeypatch):
    monkeypatch.setenv("RLCAR_TOKENS", str(site / "secret" / "tokens.json"))
    assert rlcar("tokens", "create", "car")[0] == 0
    before = (site / "secret" / "tokens.json").read_bytes()
    rlcar("backup", "without")
    code, _, stderr = rlcar("restore", "without", "--only", "tokens", "--overwrite")
    assert code == 2
    assert "holds runs, data and not tokens" in stderr
    rlcar("backup", "with", "--with-tokens")
    shutil.rmtree(site / "secret")
    assert rlcar("restore", "with", "--overwrite")[0] == 0
    assert not (site / "secret").exists()
    assert rlcar("restore", "with", "--only", "tokens")[0] == 0
    assert (site / "secret" / "tokens.json").read_bytes() == before
    assert (site / "secret" / "tokens.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("backup", ""), "location is empty"),
        (("backup", "copy", "--runs", "none", "--data", "none"), "there is nothing to back up"),
        (("backup", "runs/copy"), "must not contain each other"),
        (("backup", "list", "none"), "none is not a backup"),
        (("backup", "verify", "none"), "none is not a backup"),
        (("backup", "prune", "none"), "none is not a backup"),
        (("restore", "none"), "none is not a backup"),
        (("restore", "none", "--only", "etc"), "--only 'etc': give one of runs, models"),
        (("backup", "backup-note/x"), "Not a directory"),
    ],
)
def test_a_mistake_is_one_sentence(rlcar, site, words, said):
    (site / "backup-note").write_text("a file")
    code, out, stderr = rlcar(*words)
    assert (code, out) == (2, ""), stderr
    assert said in stderr
    assert len(stderr.splitlines()) == 1


def test_without_a_version_in_the_registry_no_checkpoint_is_deleted(rlcar, site):
    """Its disk may not be mounted, and then nobody knows which runs the champion needs."""
    folder = site / "runs" / "old" / "checkpoints"
    for env_steps in (100, 200):
        os.utime(save_at(folder, env_steps).path, (time.time() - 31 * DAY_S,) * 2)
    for file in ("config.json", "run.json"):
        (folder.parent / file).write_text("{}")
    before = saves(folder)
    words = ("backup", "retain", "--registry", str(site / "not-mounted"))
    code, out, stderr = rlcar(*words)
    assert (code, out) == (2, "")
    assert "holds no version" in stderr
    assert saves(folder) == before
    code, out, stderr = rlcar(*words, "--allow-missing")
    assert (code, figures(out)["runs"]) == (0, "1"), stderr


@pytest.mark.parametrize(
    ("age_days", "is_recent"),
    [(None, False), (0, True), (7.9, True), (8.1, False), (-9, False)],
    ids=["never", "now", "recent", "old", "far future"],
)
def test_with_a_limit_on_the_age_of_the_backup_nothing_else_is_deleted(
    rlcar, site, age_days, is_recent
):
    shutil.copytree(GOLDEN / "models", site / "models")
    Registry("models").promote(2)
    # `runs` may be a link to another disk.
    (site / "runs").rename(site / "disk")
    (site / "runs").symlink_to(site / "disk")
    if age_days is not None:
        assert rlcar("backup", "copy")[0] == 0
        state = state_of(site)
        state["last_success_timestamp_seconds"] -= age_days * DAY_S
        (site / "backup-state.json").write_text(json.dumps(state))
    code, _, stderr = rlcar(
        *("backup", "retain", "--model-days", "0", "--backed-up-within-days", "8")
    )
    assert code == 0, stderr
    assert len(Registry("models").numbers()) == (2 if is_recent else 5)
    said = "backup-state.json records no complete backup of the last 8 days: rlcar backup TARGET"
    assert (said in stderr) == (not is_recent)


def test_old_checkpoints_and_models_go_except_what_an_alias_needs(rlcar, site):
    """The registry of `tests/golden` has five versions; its runs are called as their algorithm."""
    shutil.copytree(GOLDEN / "models", site / "models")
    registry = Registry("models")
    registry.promote(2)
    for name in ("documented", "second"):
        for env_steps in (100, 200):
            save = save_at(site / "runs" / name / "checkpoints", env_steps)
            os.utime(save.path, (time.time() - 31 * DAY_S,) * 2)
        for file in ("config.json", "run.json"):
            (site / "runs" / name / file).write_text("{}")
    code, out, stderr = rlcar("backup", "retain", "--model-days", "0", "--dry-run")
    assert code == 0, stderr
    assert (figures(out)["checkpoints"], figures(out)["models"]) == ("1", "3")
    assert "would delete the versions 4, 3, 1 of models" in stderr
    assert len(saves(site / "runs" / "second" / "checkpoints")) == 2
    code, out, stderr = rlcar("backup", "retain", "--model-days", "0")
    # Without a best policy, the newest checkpoint stays; the champion's run keeps all of them.
    assert [one.env_steps for one in saves(site / "runs" / "second" / "checkpoints")] == [200]
    assert len(saves(site / "runs" / "documented" / "checkpoints")) == 2
    assert [one.number for one in registry.versions()] == [5, 2]
    best = save_at(site / "runs" / "second" / "best", 150)
    (expired,) = expire_checkpoints(site / "runs", 30, ["documented"])
    assert (expired.saves, saves(site / "runs" / "second" / "checkpoints")) == (1, [])
    assert best.path.exists()
    # A run without checkpoints, and one that was trained today, are left alone.
    assert expire_checkpoints(site / "runs", 30, ["documented"]) == []
