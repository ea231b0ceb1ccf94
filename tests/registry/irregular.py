"""What may stand in place of a file in a folder that others can write to."""

import contextlib
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KINDS = ("fifo", "folder", "link", "dangling link", "device", "huge", "unreadable")
_NOBODY = 65534


def replace_with(kind: str, path: Path) -> None:
    """Puts something in place of a regular file; skips the test where the system refuses."""
    sound = path.with_name(f"sound-{path.name}")
    path.rename(sound)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        outside = path.parents[3] / "outside"
        shutil.copyfile(sound, outside)
        path.symlink_to(outside)
    elif kind == "dangling link":
        path.symlink_to(path.parent / "absent")
    elif kind == "device":
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
        except PermissionError:
            pytest.skip("may not make devices here")
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "unreadable":
        path.write_bytes(sound.read_bytes())
        path.chmod(0)
    sound.unlink()


@contextlib.contextmanager
def without_privileges(folder: Path) -> Iterator[None]:
    """Reads as a user whom permissions bind, which they do not root."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, _NOBODY, _NOBODY, follow_symlinks=False)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that every user can reach, as pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="rlcar-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_time(work: Callable[[], Any], limit_s: float = 30.0) -> Any:
    """Returns what the work returns, or the error that it raises; fails when it hangs."""
    told: list[Any] = []

    def run() -> None:
        try:
            told.append(work())
        except BaseException as error:
            told.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    assert told, f"no answer within {limit_s:g} s"
    return told[0]
