"""The Redis of the overlay `fault-tolerant` has exactly the password of its Secret."""

import shutil
import subprocess
from pathlib import Path
from socket import create_connection

import pytest
import yaml

from benchmarks.processes import free_port
from tests.k8s.manifests import K8S
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)

_MANIFEST = K8S / "overlays" / "fault-tolerant" / "statefulset-redis.yaml"


def _start(folder: Path, password: str, port: int) -> subprocess.Popen[str]:
    """Runs the command of the container, in a folder and at a port of its own."""
    pod = yaml.safe_load(_MANIFEST.read_text())["spec"]["template"]["spec"]
    shell, option, script = pod["containers"][0]["command"]
    script = script.replace("/run/redis", str(folder)).replace("--dir /data", f"--dir {folder}")
    return subprocess.Popen(
        [shell, option, f"{script.rstrip()} --port {port} --bind 127.0.0.1"],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "REDIS_PASSWORD": password},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _ask(port: int, password: str) -> str:
    """Logs in over Redis's own protocol, and asks for a sign of life."""
    words = [b"AUTH", password.encode()]
    parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)]
    try:
        with create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"".join(parts))
            return connection.recv(200).decode()
    except OSError:
        return ""


@pytest.mark.parametrize(
    "password",
    [
        "5f0cab12",
        "two words ",
        '"quoted"',
        "it's",
        "back\\slash\\",
        "a # b $(id) `id` $HOME",
        "&/é",
    ],
)
def test_any_printable_password_is_the_one_that_redis_asks_for(tmp_path, password):
    port = free_port()
    with _start(tmp_path, password, port) as process:
        try:
            wait_until(lambda: _ask(port, password))
            assert _ask(port, password) == "+OK\r\n"
            assert _ask(port, f"{password}x").startswith("-WRONGPASS")
            assert (tmp_path / "password.conf").stat().st_mode & 0o077 == 0
        finally:
            process.terminate()


@pytest.mark.parametrize("password", ["", "ends with a line break\n", "a\tb"])
def test_a_password_that_redis_cannot_have_is_refused_in_a_sentence(tmp_path, password):
    with _start(tmp_path, password, free_port()) as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    reason = "the password in the secret rlcar-redis is empty or has control characters"
    assert said == f"{reason}: create another\n"
