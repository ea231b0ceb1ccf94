"""The install script: repeatable, reversible, and one sentence for what it cannot do."""

import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.installed_host import INSTALL, ROOT, VENV, install

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


def everything_in(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Returns the mode, the time and the content of every file and folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = os.readlink(path).encode() if path.is_symlink() else b""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.mark.parametrize("init", ["systemd", "supervisor"])
def test_a_second_run_changes_nothing(tmp_path, init):
    options = ["--init", init, "--training", "first", "--training", "second", "--spot", "--gpu"]
    first = install(tmp_path, *options)
    assert first.returncode == 0, first.stderr
    before = everything_in(tmp_path)
    second = install(tmp_path, *options)
    assert (second.stdout, second.stderr) == (
        "everything is as it should be: nothing changed\n",
        "",
    )
    assert everything_in(tmp_path) == before


def test_a_changed_template_counts_as_a_change_and_a_linked_folder_as_none(tmp_path):
    disk, root = tmp_path / "disk", tmp_path / "host"
    disk.mkdir()
    (root / "var/lib/rlcar").mkdir(parents=True)
    (root / "var/lib/rlcar/runs").symlink_to(disk)
    options = ["--init", "supervisor", "--training", "first"]
    install(root, *options)
    assert install(root, *options).stdout == "everything is as it should be: nothing changed\n"
    (root / "etc/supervisor/conf.d/rlcar-train-first.conf").unlink()
    assert "1 changes would be made" in install(root, *options, "--dry-run").stdout
    assert "1 changes made" in install(root, *options).stdout


@pytest.mark.parametrize("init", ["systemd", "supervisor"])
def test_uninstalling_keeps_data_and_purging_leaves_nothing(tmp_path, init):
    installed = tmp_path / "host"
    installed.mkdir()
    foreign = installed / "etc/supervisor/conf.d/rlcar-of-somebody.conf"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[program:other]\ncommand=/bin/true\n")
    install(installed, "--init", init, "--training", "first", "--spot")
    checkpoint = installed / "var/lib/rlcar/runs/first/checkpoint"
    checkpoint.parent.mkdir()
    checkpoint.write_text("precious")

    done = install(installed, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert "data and configuration stay in " in done.stdout
    assert checkpoint.read_text() == "precious"
    left = {str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()}
    assert {name.split("/")[0] + "/" + name.split("/")[1] for name in left} <= {
        "etc/rlcar",
        "etc/supervisor",
        "var/lib",
        "var/log",
    }

    assert install(installed, "--uninstall", "--purge").returncode == 0
    assert [p for p in installed.rglob("*") if p.is_file()] == [foreign]
    assert "0 changes made" in install(installed, "--uninstall", "--purge").stdout


def test_a_dry_run_changes_nothing(tmp_path):
    dry = install(tmp_path, "--init", "supervisor", "--training", "first", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert f"would write {tmp_path}/etc/supervisor/conf.d/rlcar-train-first.conf" in dry.stdout
    assert dry.stdout.endswith(" changes would be made; nothing was changed\n")
    assert list(tmp_path.iterdir()) == []
    install(tmp_path, "--init", "supervisor")
    before = everything_in(tmp_path)
    dry = install(tmp_path, "--uninstall", "--purge", "--dry-run")
    assert "would remove " in dry.stdout
    assert everything_in(tmp_path) == before


def test_settings_of_the_administrator_survive_an_upgrade_and_a_roll_back_returns(tmp_path):
    def environment(name):  # enough of one for the script, which starts nothing below another root
        folder = tmp_path / name / "bin"
        folder.mkdir(parents=True)
        (folder / "rlcar").symlink_to(VENV / "bin" / "rlcar")
        return folder.parent

    root, old, new = tmp_path / "host", environment("old"), environment("new")
    root.mkdir()
    install(root, "--init", "systemd", "--training", "first", "--venv", old)
    settings = root / "etc/rlcar/train/first.env"
    settings.write_text("RLCAR_TRAIN_OPTIONS=--preset small\n")
    upgraded = install(root, "--init", "systemd", "--training", "first", "--venv", new)
    assert f"use {new}" in upgraded.stdout
    assert settings.read_text() == "RLCAR_TRAIN_OPTIONS=--preset small\n"
    current = root / "opt/rlcar/current"
    assert Path(os.readlink(current)) == new
    assert install(root, "--init", "systemd", "--rollback").returncode == 0
    assert Path(os.readlink(current)) == old
    assert install(root, "--init", "systemd", "--rollback").returncode == 0
    assert Path(os.readlink(current)) == new


def test_nothing_that_is_secret_can_be_read_by_others(tmp_path):
    os.chmod(tmp_path, 0o755)
    install(tmp_path, "--init", "supervisor", "--training", "first")
    for name in ("etc/rlcar", "var/lib/rlcar", "var/lib/rlcar/runs", "var/log/rlcar"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "etc/rlcar/credentials/object-store").stat().st_mode) == 0o600
    for path in (tmp_path / "etc/rlcar").rglob("*.env"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--init", "openrc"], "--init openrc: there are systemd, supervisor and auto"),
        (["--initt"], "there is no option --initt: --help lists them"),
        (["--training"], "--training needs a value"),
        (["--training", "../x"], "--training '../x' is not a name: use letters"),
        (["--server-name", "a;b"], "--server-name 'a;b' is not a host name"),
        (["--https-port", "70000"], "port 70000 is not a number from 1 to 65535"),
        (["--http-port", "x"], "port 'x' is not a number from 1 to 65535"),
        (["--purge"], "--purge is only for --uninstall"),
        (["--rollback", "--init", "systemd"], "there is no earlier environment in "),
        (["--init", "systemd", "--venv", "/nowhere"], "--venv /nowhere holds no bin/rlcar"),
        (["--init", "systemd", "--self-signed"], "a certificate needs --server-name"),
        (["--init", "systemd", "--python", "/bin/false"], "no Python 3.11 to 3.13 (/bin/false; "),
        (["--root", "here"], "--root 'here' is not an absolute path"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(tmp_path, options, message):
    done = install(tmp_path, *options)
    assert done.returncode == 2
    assert done.stderr.startswith(f"install: {message}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_another_program_uses_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = install(tmp_path, "--init", "systemd", "--serve-port", port)
    assert done.returncode == 2
    assert f"port {port} is in use by another program" in done.stderr


@pytest.mark.skipif(NGINX is None, reason="nginx is missing: apt install nginx-light")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--server-name needs --certificate and --key, or --self-signed"),
        (["--certificate", "/no/c.pem", "--key", "/no/k.pem"], "/no/c.pem cannot be read"),
        (["--certificate", "c.pem", "--key", "/k.pem"], "c.pem is not an absolute path"),
    ],
)
def test_a_wrong_certificate_is_one_sentence(tmp_path, options, message):
    done = install(tmp_path, "--init", "supervisor", "--server-name", "cars.example.org", *options)
    assert done.returncode == 2
    assert done.stderr.startswith(f"install: {message}"), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_who_is_not_root_is_told_so():
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-s"],
        input=INSTALL.read_text(),  # the checkout may lie where that user cannot read
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert done.returncode == 2
    assert "only root can install: repeat it with sudo (user is nobody)" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is missing")
def test_the_scripts_have_no_known_mistakes():
    scripts = [INSTALL, ROOT / "deploy/supervisor/rlcar-service"]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
