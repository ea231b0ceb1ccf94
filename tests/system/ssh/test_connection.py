"""`rlcar host` with a real SSH server: one sentence for whatever is in the way."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from rlcar.errors import UserError
from rlcar.system.ssh.connection import explain, run_on
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]
SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
USER = pwd.getpwuid(os.getuid()).pw_name
# OpenSSH finds its files through the list of users, whatever HOME says: it gets a list of its own.
AS_USER_WITH_HOME = """
mount --bind "$1" /etc/passwd
shift
exec "$@"
"""
AS_SERVER = """
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
exec "$@"
"""


def unshared(script: str, *arguments: object) -> list[str]:
    return ["unshare", "--mount", "sh", "-euc", script, "sh", *map(str, arguments)]


def what_is_missing() -> str | None:
    if SSHD is None or shutil.which("ssh") is None:
        return "not installed: openssh-server"
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "mounting a list of users needs root and unshare"
    if subprocess.run(unshared(AS_SERVER, "true"), check=False).returncode:
        return "nothing can be mounted here"
    return None


needs_server = pytest.mark.skipif(what_is_missing() is not None, reason=what_is_missing() or "")


def make_key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


class Laptop:
    """A user with a home folder of its own, and a server that accepts this user's key."""

    def __init__(self, folder: Path):
        self.home, self.server, self.port = folder / "home", folder / "server", free_port()
        for path in (self.home, self.server):
            path.mkdir()
        self.key = make_key(folder / "key")
        self.passwd = folder / "passwd"
        entry = f"{USER}:x:{os.getuid()}:{os.getgid()}::{self.home}:/bin/sh\n"
        others = Path("/etc/passwd").read_text().splitlines(keepends=True)
        others = [line for line in others if line.split(":")[2] != str(os.getuid())]
        self.passwd.write_text(entry + "".join(others))

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            unshared(AS_USER_WITH_HOME, self.passwd, *command),
            env=os.environ | {"PYTHONPATH": str(ROOT), "SSH_AUTH_SOCK": ""},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def host(self, *options: object) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "rlcar.cli", "host", *options)

    def accept(self) -> None:
        """Connects as a person does who has compared the key and answers yes."""
        options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new"]
        done = self.run("ssh", *options, "gpu1", "true")
        assert done.returncode == 0, done.stderr

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Runs a server with a new key of its own."""
        host_key = self.server / "host_key"
        host_key.unlink(missing_ok=True)
        make_key(host_key)
        config = self.server / "config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {host_key}\n"
            f"AuthorizedKeysFile {self.key}.pub\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
        )
        command = unshared(AS_SERVER, SSHD, "-D", "-e", "-f", config)
        with (self.server / "log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log)
        try:
            wait_until(lambda: is_open(self.port), 20)
            yield
        finally:
            process.terminate()
            process.wait(20)


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def laptop(tmp_path) -> Laptop:
    return Laptop(tmp_path)


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.long
@needs_server
def test_from_an_unknown_host_to_a_changed_key(laptop):
    where = ("--address", f"{USER}@127.0.0.1", "--port", laptop.port, "--identity", laptop.key)
    added = laptop.host("add", "gpu1", *where)
    assert added.returncode == 0, added.stderr
    assert added.stderr.splitlines()[-1] == "test it with: rlcar host test gpu1"
    place = f"gpu1 ({USER}@127.0.0.1, port {laptop.port})"
    laptop.host("add", "nowhere", "--address", "no-such-host.invalid")
    nowhere = sentence(laptop.host("test", "nowhere"))
    assert "the address of nowhere is not known (ssh: Could not resolve hostname" in nowhere
    refused = sentence(laptop.host("test", "gpu1"))
    assert f"gpu1 (127.0.0.1, port {laptop.port}) refuses SSH: start its SSH server" in refused

    with laptop.serving():
        unknown = sentence(laptop.host("test", "gpu1"))
        shown = laptop.run("ssh-keygen", "-lf", laptop.server / "host_key.pub").stdout.split()[1]
        assert "is not known yet (ssh-ed25519 SHA256:" in unknown
        assert shown in unknown
        assert not (laptop.home / ".ssh/known_hosts").exists()
        laptop.accept()
        found = laptop.host("test", "gpu1")
        assert found.returncode == 0, found.stderr
        assert found.stdout.startswith("gpu1 answers after ")
        assert f", {os.cpu_count()} cores, " in found.stdout

        stranger = make_key(laptop.server / "stranger")
        laptop.host("add", "gpu1", *where[:4], "--identity", stranger)
        denied = sentence(laptop.host("test", "gpu1"))
        assert f"{place} accepts none of this machine's keys: add the public key" in denied
        laptop.host("add", "gpu1", *where)

    with laptop.serving():
        changed = sentence(laptop.host("test", "gpu1"))
        assert "has changed (now ssh-ed25519 SHA256:" in changed
        assert f"ssh-keygen -f '{laptop.home}/.ssh/known_hosts' -R" in changed.replace('"', "'")


@pytest.mark.parametrize("name", ["-oProxyCommand=touch proof", "gpu1\nx", ""])
def test_a_name_that_is_an_option_never_reaches_ssh(name):
    with pytest.raises(UserError, match="is not a name for a host"):
        run_on(name, "true")


def test_a_host_that_never_answers_is_one_sentence():
    said = (
        "debug1: Connecting to 192.0.2.1 [192.0.2.1] port 22.\n"
        "debug1: connect to address 192.0.2.1 port 22: Connection timed out\n"
        "ssh: connect to host 192.0.2.1 port 22: Connection timed out\n"
    )
    assert explain("gpu1", said).startswith("gpu1 (192.0.2.1, port 22) does not answer within 10 s")
