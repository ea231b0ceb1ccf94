"""Files that are on the disk when their writer says so."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from rlcar.system.regular_file import open_regular


def write(path: Path, chunks: Iterable[bytes | memoryview], mode: int = 0o666) -> str:
    """Writes a new file through to the disk and returns the SHA-256 of what was meant."""
    digest = hashlib.sha256()
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def checksum(path: Path, limit_bytes: int | None = None) -> str:
    """The SHA-256 of a regular file as it is; one of more bytes than allowed is refused."""
    with open_regular(path, limit_bytes) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
