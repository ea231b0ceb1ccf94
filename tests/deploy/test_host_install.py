"""The install script: repeatable, reversible, and one sentence for what it cannot do."""

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.installed_host import INSTALL, ROOT, VENV, install, running
from tests.support.waiting import wait_until

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
    first = install(tmp_path, *options, python=None)
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


def environment(folder: Path) -> Path:
    """Makes enough of an environment for the script, which starts nothing below another root."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "rlcar").symlink_to(VENV / "bin" / "rlcar")
    # What the script keeps in an environment that it has built.
    (folder / "share").mkdir()
    (folder / "share" / "rlcar").symlink_to(ROOT)
    return folder


def install_with(
    program: str, script: str, root: Path, *options: object
) -> subprocess.CompletedProcess[str]:
    """Runs the install script where a shell script takes the place of one program."""
    folder = root.parent / "programs"
    folder.mkdir()
    (folder / program).write_text(f"#!/bin/sh\n{script}\n")
    (folder / program).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        return install(root, *options)


def test_settings_of_the_administrator_survive_an_upgrade_and_a_roll_back_returns(tmp_path):
    root, old, new = tmp_path / "host", environment(tmp_path / "old"), environment(tmp_path / "new")
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


# Maps a file into its memory, as a program does with a library.
MAPS_ITS_ARGUMENT = """
import mmap, sys, time
with open(sys.argv[1]) as file:
    library = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
time.sleep(600)
"""


@pytest.mark.parametrize("is_program", [True, False], ids=["program", "library"])
def test_an_environment_is_kept_while_a_process_runs_in_it(tmp_path, is_program):
    releases = tmp_path / "opt/rlcar/releases"
    first, second, third, fourth = (releases / name for name in "1234")
    environment(first)
    sleeper, library = first / "bin" / "sleeper", first / "library.so"
    shutil.copy("/bin/sleep", sleeper)
    library.write_bytes(bytes(4096))
    mapping = [sys.executable, "-c", MAPS_ITS_ARGUMENT, library]
    # A command line that only mentions an environment does not use it.
    mentioning = [sys.executable, "-c", "import time; time.sleep(600)", f"{second}/bin/rlcar"]
    install(tmp_path, "--init", "systemd", "--venv", first)
    with running([str(sleeper), "600"] if is_program else mapping, mentioning) as processes:
        for release in (second, third):
            install(tmp_path, "--init", "systemd", "--venv", environment(release))
        wait_until(lambda: str(first) in Path(f"/proc/{processes[0].pid}/maps").read_text(), 60)
        upgraded = install(tmp_path, "--init", "systemd", "--venv", environment(fourth))
        assert f"keep {first}, because process {processes[0].pid} (" in upgraded.stdout
        assert sorted(releases.iterdir()) == [first, third, fourth]
        refused = install(tmp_path, "--uninstall")
        assert refused.returncode == 2
        assert f"install: process {processes[0].pid} (" in refused.stderr
        assert (tmp_path / "opt/rlcar/current").resolve() == fourth
    last = install(tmp_path, "--init", "systemd", "--venv", fourth)
    assert last.stdout.startswith(f"remove {first}\n1 changes made")


# Each of the renames of an upgrade, with which the script is killed.
@pytest.mark.parametrize("killed_at", ["previous.next", "current", "previous"])
def test_an_interrupted_upgrade_can_be_rolled_back(tmp_path, killed_at):
    root, old, new = tmp_path / "host", environment(tmp_path / "old"), environment(tmp_path / "new")
    root.mkdir()
    oldest = environment(tmp_path / "oldest")
    for release in (oldest, old):
        install(root, "--init", "systemd", "--venv", release)
    opt = root / "opt/rlcar"
    killed = install_with(
        "mv",
        f'for target; do :; done; [ "$target" != {opt}/{killed_at} ] || exec kill -9 $PPID\n'
        'exec /bin/mv "$@"',
        *(root, "--init", "systemd", "--venv", new),
    )
    assert killed.returncode == -9
    current = Path(os.readlink(opt / "current"))
    assert current in (old, new)
    assert current == (new if killed_at == "previous" else old)
    rolled_back = install(root, "--init", "systemd", "--rollback")
    assert rolled_back.returncode == 0, rolled_back.stderr
    expected = {old: oldest, new: old}[current]
    assert Path(os.readlink(opt / "current")) == expected
    assert Path(os.readlink(opt / "previous")) == current
    assert sorted(path.name for path in opt.iterdir()) == [
        ".lock", ".restart", "bin", "current", "previous", "releases", "share",
    ]  # fmt: skip


def test_two_runs_at_once_are_refused(tmp_path):
    install(tmp_path, "--init", "systemd")
    lock = os.open(tmp_path / "opt/rlcar/.lock", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for options in (
            ["--init", "systemd"],
            ["--init", "systemd", "--rollback"],
            ["--uninstall"],
        ):
            done = install(tmp_path, *options)
            assert done.returncode == 2
            assert done.stderr.startswith("install: another run of this script, or a program that")
    finally:
        os.close(lock)


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


needs_site = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None, reason="nginx or openssl is missing"
)


def openssl(*words: object) -> str:
    command = ["openssl", *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def names_of(certificate: Path) -> str:
    return openssl("x509", "-in", certificate, "-noout", "-ext", "subjectAltName")


@needs_site
def test_a_self_signed_certificate_is_renewed_for_another_name_key_or_year(tmp_path):
    def run(name):
        return install(tmp_path, "--init", "systemd", "--server-name", name, "--self-signed")

    certificate, key = (
        tmp_path / "etc/rlcar/tls" / f"{name}.pem" for name in ("certificate", "key")
    )
    long_name = f"{'a' * 60}.example.org"  # longer than a common name can be
    assert run(long_name).returncode == 0
    assert f"DNS:{long_name}," in names_of(certificate)
    first = certificate.read_bytes()
    assert run(long_name).stdout == "everything is as it should be: nothing changed\n"

    renewed = run("cars.example.org")
    assert "make a certificate for cars.example.org" in renewed.stdout
    assert "serve.env does not allow the host name cars.example.org" in renewed.stdout
    assert "DNS:cars.example.org," in names_of(certificate)
    assert certificate.read_bytes() != first

    key.write_text(openssl("genpkey", "-algorithm", "ed25519"))
    assert "make a certificate" in run("cars.example.org").stdout
    assert openssl("pkey", "-in", key, "-pubout") == openssl(
        "x509", "-in", certificate, "-noout", "-pubkey"
    )
    assert stat.S_IMODE(key.stat().st_mode) == 0o600

    openssl(
        *("req", "-x509", "-key", key, "-days", 29, "-subj", "/CN=cars.example.org"),
        *("-addext", "subjectAltName=DNS:cars.example.org,DNS:localhost,IP:127.0.0.1"),
        *("-out", certificate),
    )  # as an earlier release made it, eleven months ago
    assert "make a certificate" in run("cars.example.org").stdout


@needs_site
def test_a_certificate_of_the_operator_is_never_replaced(tmp_path):
    tls = tmp_path / "etc/rlcar/tls"
    tls.mkdir(parents=True, mode=0o700)
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", "/CN=cars.example.org", "-addext", "subjectAltName=DNS:cars.example.org"),
        *("-keyout", tls / "key.pem", "-out", tls / "certificate.pem"),
    )
    before = everything_in(tls)
    for name, is_warned in (("cars.example.org", False), ("other.example.org", True)):
        done = install(tmp_path, "--init", "systemd", "--server-name", name, "--self-signed")
        assert done.returncode == 0
        assert (
            "certificate.pem is not for other.example.org, and stays" in done.stdout
        ) == is_warned
        assert everything_in(tls) == before
    (tls / "certificate.pem").write_text("")
    done = install(tmp_path, "--init", "systemd", "--server-name", name, "--self-signed")
    assert done.returncode == 2
    assert "certificate.pem is not a certificate: remove it" in done.stderr


@needs_site
def test_a_failing_openssl_is_one_sentence_and_changes_nothing(tmp_path):
    root = tmp_path / "host"
    root.mkdir()
    install(root, "--init", "systemd")
    done = install_with(
        "openssl",
        "echo 'no entropy' >&2; exit 1",
        *(root, "--init", "systemd", "--venv", environment(tmp_path / "new")),
        *("--server-name", "cars.example.org", "--self-signed"),
    )
    assert done.returncode == 2
    assert done.stderr == (
        "install: openssl cannot make a certificate for cars.example.org: no entropy\n"
    )
    assert Path(os.readlink(root / "opt/rlcar/current")) == VENV
    assert not list((root / "etc/rlcar/tls").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_who_is_not_root_is_told_so():
    with tempfile.TemporaryDirectory() as folder:  # that user can read it, unlike the checkout
        os.chmod(folder, 0o755)
        scripts = shutil.copytree(INSTALL.parent, Path(folder) / "deploy/host")
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
            + [str(scripts / "install")],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
    assert done.returncode == 2
    assert "only root can install: repeat it with sudo (user is nobody)" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is missing")
def test_the_scripts_have_no_known_mistakes():
    names = ("install", "setup", "launch", "common.sh")
    scripts = [*(INSTALL.with_name(name) for name in names)]
    scripts += [ROOT / "deploy/supervisor/rlcar-service"]
    done = subprocess.run(
        ["shellcheck", "--external-sources", *scripts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
