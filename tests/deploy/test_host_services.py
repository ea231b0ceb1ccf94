"""rlcar-service: settings are read as systemd reads them, and backups and retention run."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rlcar.registry import Registry
from tests.support.installed_host import ROOT, install
from tests.support.untrained_run import untrained


@pytest.fixture
def host(tmp_path):
    done = install(tmp_path, "--init", "supervisor", "--training", "first")
    assert done.returncode == 0, done.stderr
    registry = Registry(tmp_path / "var/lib/rlcar/models")
    registry.promote(registry.publish(untrained()).number)
    return tmp_path


def service(host: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [host / "opt/rlcar/bin/rlcar-service", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_backup_goes_to_a_folder_with_a_blank_in_its_name(host):
    settings = host / "etc/rlcar/backup.env"
    for number, value in enumerate(["{}", '"{}"', "'{}'  \r"]):
        target = host / f"my backup {number}"
        settings.write_text(f"# target\n\n  RLCAR_BACKUP_TARGET={value.format(target)}\n")
        done = service(host, "backup")
        assert done.returncode == 0, done.stderr
        assert (target / "rlcar-backup.json").exists()
    for command in ("backup-verify", "backup-prune"):
        done = service(host, command)
        assert done.returncode == 0, done.stderr


def test_a_value_is_never_evaluated(host):
    settings = host / "etc/rlcar/backup.env"
    settings.write_text(f"RLCAR_BACKUP_TARGET={host}/$(touch {host}/x)`a`;b&c\n")
    assert service(host, "backup").returncode == 0
    assert (host / f"$(touch {host}" / "x)`a`;b&c" / "rlcar-backup.json").exists()
    assert not (host / "x").exists()


def test_a_command_by_hand_has_the_folders_and_settings_of_the_services(host, monkeypatch):
    monkeypatch.chdir(host)
    target = f"{host}/my backup"
    models = (host / "var/lib/rlcar/models").rename(host / "my models")
    (host / "etc/rlcar/rlcar.env").write_text(f"RLCAR_REGISTRY={models}\n")
    for words in (["backup", target], ["backup", "verify", target]):
        assert service(host, "run", *words).returncode == 0
    assert (host / "var/lib/rlcar/backup-state.json").exists()
    assert not (host / "backup-state.json").exists()
    (snapshot,) = json.loads(service(host, "run", "backup", "list", target, "--json").stdout)
    assert "models" in snapshot["parts"]
    shutil.rmtree(models)
    done = service(host, "run", "restore", target, "--only", "models")
    assert done.returncode == 0, done.stderr
    assert Registry(models).numbers() == [1]


def test_a_wrong_line_of_a_settings_file_is_one_sentence(host):
    for line, message in (
        ("secret", "line 2 of {}/etc/rlcar/rlcar.env is not of the form NAME=VALUE"),
        ("export A=1", "line 2 of {}/etc/rlcar/rlcar.env: 'export A' is not a name; write NAME="),
        ("A =1", "line 2 of {}/etc/rlcar/rlcar.env: 'A ' is not a name; write NAME=VALUE"),
    ):
        (host / "etc/rlcar/rlcar.env").write_text(f"# first\n{line}\n")
        done = service(host, "serve")
        assert done.returncode == 2
        assert done.stderr.startswith(f"rlcar-service: {message.format(host)}")
        assert done.stderr.count("\n") == 1


def test_nothing_is_deleted_without_a_complete_and_recent_backup(host):
    # The state of the backups lies beside the link, where the monitor looks, too.
    disk = host / "disk"
    (host / "var/lib/rlcar/runs").rename(disk)
    (host / "var/lib/rlcar/runs").symlink_to(disk)
    settings = host / "etc/rlcar/backup.env"
    registry = Registry(host / "var/lib/rlcar/models")
    for _ in range(3):
        registry.promote(registry.publish(untrained()).number)

    def versions_after_retention(target: str, options: str, *, is_recent: bool) -> int:
        settings.write_text(f"RLCAR_BACKUP_TARGET={target}\nRLCAR_RETAIN_OPTIONS={options}\n")
        if target:
            service(host, "backup")
        done = service(host, "backup-retain")
        assert done.returncode == 0, done.stderr
        assert ("nothing is deleted" in done.stderr) == (not is_recent)
        return len(registry.numbers())

    assert versions_after_retention("/dev/null", "--model-days 0", is_recent=False) == 4
    target = f"{host}/b"
    assert versions_after_retention(target, "--model-days 0 --dry-run", is_recent=True) == 4
    state = host / "var/lib/rlcar/backup-state.json"
    values = json.loads(state.read_text())
    values["last_success_timestamp_seconds"] -= 8.1 * 86_400
    state.write_text(json.dumps(values))
    assert versions_after_retention("", "--model-days 0", is_recent=False) == 4
    assert versions_after_retention(target, "--model-days 0", is_recent=True) == 2


IN_UNIT_AND_SCRIPT = [
    ("${RLCAR_BACKUP_METRICS}/rlcar_backup.prom", '"$metrics"'),
    ("/var/lib/rlcar/backup-state.json", '"$state"'),
    ("/var/lib/rlcar/runs", '"$data/runs"'),
    ("${RLCAR_BACKUP_TARGET}", '"$RLCAR_BACKUP_TARGET"'),
    ("$RLCAR_RETAIN_OPTIONS", "${RLCAR_RETAIN_OPTIONS-}"),
]


def test_units_and_cron_run_the_same_commands():
    """They are written twice, because systemd and supervisor pass variables differently."""
    script = (ROOT / "deploy/supervisor/rlcar-service").read_text()
    for name in ("backup", "backup-verify", "backup-prune", "backup-retain"):
        unit = (ROOT / f"deploy/systemd/rlcar-{name}.service").read_text()
        command = re.search(r"^ExecStart=\S*/rlcar (.*)$", unit, re.MULTILINE).group(1)
        for in_unit, in_script in IN_UNIT_AND_SCRIPT:
            command = command.replace(in_unit, in_script)
        assert f'exec "$rlcar" {command}' in script
