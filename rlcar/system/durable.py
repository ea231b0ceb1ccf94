"""Writes files that are complete or absent.

A reader must never find an incomplete file, even if its writer is still busy, was killed or met a
full disk. Every writer therefore fills a temporary file beside the target and renames it.

- `replacing` and `replace_text` are for files that can be recreated or are soon rewritten: reports,
  pictures, metrics, signs of life. After a power failure such a file may be missing or empty.
- `replace_durably` is for files that cannot be recreated: published models and access tokens. It
  returns when the disk holds the file and its name, which takes milliseconds. `create_durably` does
  the same for a file that must not exist yet.
- Checkpoints are folders, which `rlcar.storage.checkpoint` builds with `write_new` and
  `sync_folder`.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlcar.errors import UserError, reason_of
from rlcar.system.regular_file import open_regular

# Prefix of the names of temporary files. The rest is random, so that threads, processes and hosts
# that share a folder do not collide, and holds no part of the target's name, which may already be
# as long as the file system allows.
WRITING = ".writing-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it at the end, or removes it after an error.

    The folder must exist. Nothing is synced to the disk.
    """
    temporary = path.with_name(f"{WRITING}{uuid.uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """Writes a text file, complete or as it was; does not sync it to the disk."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_durably(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Writes a file, complete or as it was, and syncs it and its name to the disk."""
    with replacing(path) as temporary:
        write_new(temporary, [data], mode)
    sync_folder(path.parent)


def create_durably(path: Path, data: bytes, mode: int = 0o666) -> bool:
    """Writes a new file, complete or absent, and syncs it; returns False if the name is taken."""
    temporary = path.with_name(f"{WRITING}{uuid.uuid4().hex}")
    try:
        write_new(temporary, [data], mode)
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces a file
        except FileExistsError:
            return False
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def write_new(path: Path, chunks: Iterable[bytes | memoryview], mode: int = 0o666) -> str:
    """Writes a file that must not exist yet and syncs it; returns the SHA-256 of the chunks."""
    digest = hashlib.sha256()
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Syncs the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explaining_write_errors(path: Path, error_type: type[UserError] = UserError) -> Iterator[None]:
    """Raises an OSError of the block as `error_type`, which names `path` and the reason."""
    try:
        yield
    except OSError as error:
        raise error_type(f"cannot write {path}: {reason_of(error)}") from error


def checksum(path: Path, limit_bytes: int | None = None) -> str:
    """Returns the SHA-256 of a regular file; raises NotRegularError above `limit_bytes`."""
    with open_regular(path, limit_bytes) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
