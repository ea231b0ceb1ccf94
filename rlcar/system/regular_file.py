"""Reads files in folders that other users or programs may write to.

Opening a FIFO waits for a writer, reading /dev/zero never ends, and a sparse file of a terabyte
does not fit into memory. These functions open only regular files of bounded size, and never wait.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_TEXT_BYTES = 1 << 26  # of a description, a configuration, a report or a list of tokens
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegularError(OSError):
    """The path is not a regular file, or the file is too large."""


def open_regular(
    path: str | Path, limit_bytes: int | None = None, *, follow_links: bool = True
) -> BufferedReader:
    """Opens a regular file for reading, without waiting.

    Raises FileNotFoundError when there is no file, NotRegularError for anything but a regular file
    of at most `limit_bytes`, and another OSError when it cannot be opened. With
    `follow_links=False` a symbolic link is refused as well.
    """
    status = os.stat(path, follow_symlinks=follow_links)
    _check(path, status, limit_bytes)  # before opening: opening a device can have side effects
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags if follow_links else flags | os.O_NOFOLLOW)
    try:
        _check(path, os.fstat(descriptor), limit_bytes)  # it may have been replaced meanwhile
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(
    path: str | Path, limit_bytes: int = MAX_TEXT_BYTES, *, follow_links: bool = True
) -> bytes:
    """Returns the bytes of a regular file; raises as `open_regular` does."""
    with open_regular(path, limit_bytes, follow_links=follow_links) as file:
        # Only as many bytes as it has now, in case it grows while it is read.
        return file.read(os.fstat(file.fileno()).st_size)


def _check(path: str | Path, status: os.stat_result, limit_bytes: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "a special file")
        raise NotRegularError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
    if limit_bytes is not None and status.st_size > limit_bytes:
        raise NotRegularError(
            errno.EFBIG,
            f"it has {status.st_size} bytes, more than the {limit_bytes} allowed",
            str(path),
        )
