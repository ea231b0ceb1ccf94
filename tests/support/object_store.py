"""An object store that speaks S3, in a process of its own.

Within the tests' process, other tests would change it: their user, their clock, their warnings.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

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
