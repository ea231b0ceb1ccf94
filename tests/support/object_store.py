"""An object store that speaks S3, in a process of its own.

Within the tests' process, other tests would change it: their user, their clock, their warnings.
"""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from pyarrow import fs

_PROGRAM = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def object_store() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Starts the server; yields its process and its address, `host:port`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM], text=True, **pipes)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        os.kill(process.pid, signal.SIGCONT)  # a test may have stopped it
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def make_bucket(address: str, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes an empty bucket; returns the options of its URLs, and sets credentials for it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    files = fs.S3FileSystem(
        endpoint_override=address, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    files.create_dir(name)
    return f"endpoint_override={address}&scheme=http&region=us-east-1"


@contextlib.contextmanager
def requiring_signatures(address: str) -> Iterator[None]:
    """Makes the server check signatures inside the block; it knows no key."""
    _require_after(address, "0")
    try:
        yield
    finally:
        _require_after(address, "inf")


def _require_after(address: str, requests: str) -> None:
    urllib.request.urlopen(
        urllib.request.Request(
            f"http://{address}/moto-api/reset-auth",
            data=requests.encode(),
            headers={"Content-Type": "text/plain"},
        ),
        timeout=10,
    ).close()
