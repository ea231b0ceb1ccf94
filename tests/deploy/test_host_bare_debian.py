"""The setup script in a bare Debian: what it asks for suffices, and nothing else is needed."""

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installed_host import ROOT

MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")
SUITE = "bookworm"
# The packages that docs/how-to/production-host.md names, without the SSH server.
PACKAGES = ("git", "python3-venv", "tmux")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Not at its usual place, where the package ca-certificates would replace it.
COPY = "host-certificates.crt"
# Mounts in a namespace that ends with the command, so that nothing stays mounted.
ENTER = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
for name in null zero full random urandom tty; do
  touch "$1/dev/$name"
  mount --bind "/dev/$name" "$1/dev/$name"
done
mkdir -p "$1/dev/shm"
mount -t tmpfs tmpfs "$1/dev/shm"
root=$1
shift
exec chroot "$root" "$@"
"""


def _why_not() -> str | None:
    """Returns what is missing for a bare Debian; None if nothing is."""
    if os.geteuid() != 0:
        return "it needs root, for debootstrap and chroot"
    for program in ("debootstrap", "unshare", "chroot"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not CERTIFICATES.is_file():
        return f"{CERTIFICATES} does not exist"
    try:
        urllib.request.urlopen(f"{MIRROR}/dists/{SUITE}/Release", timeout=20).close()
    except OSError as error:
        return f"{MIRROR} cannot be reached ({error})"
    return None


class Debian:
    """The root file system of a bare Debian."""

    def __init__(self, root: Path):
        self.root = root
        self.checkout = root / "home/driver/rlcar"

    def run(
        self, *words: str, user: str | None = None, timeout_s: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in it, as root or as another user."""
        change = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}",
                                          "--init-groups"]  # fmt: skip
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter",
             str(self.root), *change, *words],
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root" if user is None else f"/home/{user}",
                "LANG": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
                # The network of this machine may have an authority of its own.
                **{name: f"/{COPY}" for name in ("SSL_CERT_FILE", "PIP_CERT")},
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )  # fmt: skip

    def install(self, *packages: str) -> None:
        """Installs packages of Debian, without those that they only recommend."""
        done = self.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
        assert done.returncode == 0, done.stderr

    def setup(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Runs the setup script as an ordinary user."""
        script = "/home/driver/rlcar/deploy/host/setup"
        return self.run(script, "--cpu", *options, user="driver", timeout_s=2400.0)


@pytest.fixture
def debian(tmp_path) -> Iterator[Debian]:
    """A bare Debian with the files of this checkout in the home of a user."""
    missing = _why_not()
    if missing is not None:
        pytest.skip(f"a bare Debian cannot be made here: {missing}")
    made = Debian(tmp_path / "root")
    command = ["debootstrap", "--variant=minbase", SUITE, str(made.root), MIRROR]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    shutil.copy("/etc/resolv.conf", made.root / "etc/resolv.conf")
    shutil.copy(CERTIFICATES, made.root / COPY)
    assert made.run("useradd", "--create-home", "driver").returncode == 0
    _unpack_checkout(made.checkout)
    assert made.run("chown", "-R", "driver:driver", "/home/driver").returncode == 0
    yield made
    shutil.rmtree(made.root)


def _unpack_checkout(folder: Path) -> None:
    """Copies the files that git tracks, as they are now."""
    names = subprocess.check_output(["git", "-C", ROOT, "ls-files", "-z"], text=True).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def _only_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.long
def test_a_bare_debian_is_ready_after_the_packages_that_the_script_and_the_page_name(debian):
    assert "(found no python3 at all): apt-get install python3 python3-venv" in _only_line(
        debian.setup("--dry-run")
    )
    debian.install("python3")
    assert _only_line(debian.setup("--dry-run")).endswith(
        "cannot make environments: apt-get install python3-venv"
    )
    debian.install("python3-venv")
    planned = debian.setup("--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "used by launch and by the records of runs: apt-get install tmux git\n" in planned.stdout
    assert "would build the environment /home/driver/rlcar/.venv" in planned.stdout
    assert not (debian.checkout / ".venv").exists()
    debian.install(*PACKAGES)

    done = debian.setup()
    assert done.returncode == 0, done.stdout + done.stderr
    assert " failed " not in done.stdout
    (missing,) = (line for line in done.stdout.splitlines() if " not installed " in line)
    assert "EnvPool" in missing  # an extra that the script leaves out
    for back_end in ("race in one process", "race on Ray"):
        assert any(line.startswith(f"{back_end} ") for line in done.stdout.splitlines())
    assert done.stdout.endswith("start a campaign with: deploy/host/launch FILE\n")

    again = debian.setup()
    assert again.returncode == 0, again.stderr
    assert again.stdout.endswith("everything is as it should be: nothing changed\n")
