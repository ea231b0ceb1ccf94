"""The home and temporary folders of this user, which containers may lack or make read-only."""

import contextlib
import getpass
import os
import pwd
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlcar.errors import UserError

LONGEST_SOCKET = (
    103 if sys.platform == "darwin" else 107
)  # bytes of a path in sockaddr_un, without its final zero
_RANDOM_BYTES = 9  # the characters that `tempfile` adds to a prefix, and a slash


def home_folder() -> Path | None:
    """Returns the home folder; None for a user without HOME and without a passwd entry."""
    try:
        return Path.home()
    except (RuntimeError, KeyError):
        return None


def account_home_folder() -> Path | None:
    """Returns the home folder of this user's passwd entry; None for a user without one.

    OpenSSH keeps its files there, whatever HOME says.
    """
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def user_name() -> str | None:
    """Returns the name of this user; None for a user without a name and a passwd entry."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an OSError since Python 3.13
        return None


def expanded(path: str | Path) -> Path:
    """Returns the path with `~` replaced; raises UserError where no home folder is known."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"{path}: the home folder of user {os.getuid()} is not known: give the path "
            "without ~, or set HOME"
        ) from error


def cache_folder() -> Path | None:
    """Returns this user's folder for caches; None if there is none that can be written."""
    named = os.environ.get("XDG_CACHE_HOME")
    home = home_folder()
    if named:
        folder = Path(named)
    elif home is not None:
        folder = home / ".cache"
    else:
        return None
    return folder if folder.is_absolute() and can_be_written(folder) else None


@contextlib.contextmanager
def folder_for_sockets(prefix: str, longest_name: int) -> Iterator[str]:
    """Makes a temporary folder for sockets with names of at most `longest_name` bytes.

    It lies below TMPDIR if the operating system allows socket paths of that length, else below
    /tmp, and is removed at the end. Raises UserError when neither works.
    """
    places = {temporary_folder(): None, "/tmp": None}
    short = [
        place for place in places if paths_fit(place, len(prefix) + _RANDOM_BYTES + longest_name)
    ]
    for place in short:
        if can_be_written(Path(place)):
            with tempfile.TemporaryDirectory(
                prefix=prefix, dir=place, ignore_cleanup_errors=True
            ) as folder:
                yield folder
            return
    raise UserError(
        f"{' and '.join(places)} cannot hold sockets, whose path may have {LONGEST_SOCKET} bytes: "
        "set TMPDIR to a writable folder with a short path"
    )


def temporary_folder() -> str:
    """Returns the folder of temporary files; raises UserError when none can be written."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UserError(
            "no temporary folder can be written (tried TMPDIR, /tmp): set TMPDIR to a writable one"
        ) from error


def paths_fit(folder: str, longest_name: int) -> bool:
    """Whether sockets in a folder may have names of `longest_name` bytes."""
    return len(os.fsencode(folder)) + 1 + longest_name <= LONGEST_SOCKET


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself if it does not exist yet."""
    for place in (folder, *folder.parents):
        try:
            is_there = place.exists()
        except OSError:
            return False
        if is_there:
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False
