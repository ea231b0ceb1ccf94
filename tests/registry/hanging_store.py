"""An object store in a process of its own, which can be made to hang and to go on."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

from pyarrow import fs

from tests.support.object_store import object_store

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "hush-hush",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class HangingStore:
    """An S3 server whose process is stopped and continued."""

    def __init__(self, process: subprocess.Popen[str], url: str):
        self.url = url
        self._process = process

    def hang(self) -> None:
        """From now on connections are accepted by the kernel, and nobody answers."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Answers everything that was asked meanwhile, and what comes."""
        os.kill(self._process.pid, signal.SIGCONT)


@contextlib.contextmanager
def hanging_store() -> Iterator[HangingStore]:
    """Starts the server with a bucket; needs ENVIRONMENT in the environment."""
    with object_store() as (process, address):
        options = f"endpoint_override={address}&scheme=http&region=us-east-1"
        files, _ = fs.FileSystem.from_uri(f"s3://models?{options}&allow_bucket_creation=true")
        files.create_dir("models")
        yield HangingStore(process, f"s3://models/registry?{options}")
