"""Stores of versions: a local folder, or any object store that pyarrow.fs supports."""

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from rlcar.errors import RegistryError, RegistryUnavailableError, reason_of
from rlcar.system.durable import (
    WRITING,
    create_durably,
    explaining_write_errors,
    replace_durably,
    sync_folder,
)
from rlcar.system.regular_file import NotRegularError, read_regular

# Prefix of the objects that mark a folder of an object store as claimed.
CLAIM = "claim-"
CLAIM_FOLDER = ".claim"  # added to the name of a file that is created once
UNREADABLE = ".unreadable"  # stands for the files of a folder that may not be listed
_CHUNK_BYTES = 1 << 20


class Store(Protocol):
    """Files with names such as `versions/00000007/manifest.json`; each is complete or absent."""

    place: str  # for messages

    def names(self, folder: str) -> list[str]:
        """Lists the files below a folder, relative to it, in any order."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Lists the folders directly below a folder, including empty ones."""
        ...

    def modified(self, folder: str) -> dict[str, float]:
        """Maps the files below a folder, including unfinished ones, to their modification times.

        These are Unix times of the store's clock, which may differ from ours.
        """
        ...

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Returns the bytes of a regular file.

        Raises FileNotFoundError, RegistryError for anything but a regular file of at most
        `limit_bytes`, and RegistryUnavailableError if it cannot be read now.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, completely or not at all; replaces an existing one."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Writes a new file, completely or not at all; returns whether this call wrote it.

        At most one of all callers ever gets True for a name.
        """
        ...

    def claim(self, folder: str) -> bool:
        """Claims a folder; returns True to at most one of all callers ever."""
        ...

    def release(self, folder: str) -> None:
        """Releases an empty claimed folder, if that is safe."""
        ...

    def delete(self, name: str) -> None:
        """Deletes a file, if there is one."""
        ...


def open_store(location: str | Path) -> Store:
    """Opens a folder or a URL (`s3://bucket/models`, `file:///srv/models`); nothing is created."""
    text = str(location)
    parts = urlsplit(text)
    if not text.strip():
        raise RegistryError("the registry's location is empty: name a folder or a URL")
    if "://" not in text:
        return LocalStore(Path(text))
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    return ObjectStore(text)


class LocalStore:
    """A folder that its owner alone can read."""

    def __init__(self, folder: Path):
        self._folder, self.place = folder, str(folder)

    def names(self, folder: str) -> list[str]:
        """Lists the files below a folder; links to folders are not followed.

        A folder that may not be listed counts as one with a file called UNREADABLE.
        """
        return [name for name in self._walk(folder) if WRITING not in name]

    def folders(self, folder: str) -> list[str]:
        """Lists all entries directly below a folder."""
        root = self._folder / folder
        try:
            return [entry.name for entry in os.scandir(root)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unavailable("list", root, error) from error

    def modified(self, folder: str) -> dict[str, float]:
        """Lists the files below a folder with their times."""
        times = {}
        for name in self._walk(folder):
            with contextlib.suppress(OSError):
                times[name] = os.lstat(self._folder / folder / name).st_mtime
        return times

    def _walk(self, folder: str) -> list[str]:
        root = self._folder / folder
        found = []

        def refuse(error: OSError) -> None:
            if isinstance(error, FileNotFoundError):  # deleted meanwhile, or not created yet
                return
            if Path(error.filename) == root:
                raise _unavailable("list", root, error) from error
            found.append((Path(error.filename).relative_to(root) / UNREADABLE).as_posix())

        for path, _, files in os.walk(root, onerror=refuse):
            inside = Path(path).relative_to(root).as_posix()
            prefix = "" if inside == "." else f"{inside}/"
            found += [prefix + file for file in files]
        return found

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Returns a file's bytes; refuses symbolic links, which may lead anywhere."""
        path = self._folder / name
        try:
            return read_regular(path, limit_bytes, follow_links=False)
        except FileNotFoundError:
            raise
        except NotRegularError as error:
            raise RegistryError(f"cannot read {path}: {reason_of(error)}") from error
        except OSError as error:
            raise _unavailable("read", path, error) from error

    def write(self, name: str, data: bytes) -> None:
        """Writes a temporary file through to the disk, then renames it."""
        path = self._folder / name
        with explaining_write_errors(path, RegistryError):
            self._make(path.parent)
            replace_durably(path, data, 0o600)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a temporary file through to the disk, then gives it its name, if that is free."""
        path = self._folder / name
        with explaining_write_errors(path, RegistryError):
            self._make(path.parent)
            return create_durably(path, data, 0o600)

    def claim(self, folder: str) -> bool:
        """Creates the folder, which succeeds only once."""
        path = self._folder / folder
        with explaining_write_errors(path, RegistryError):
            try:
                self._make(path.parent)
                path.mkdir(mode=0o700)
                sync_folder(path.parent)
            except FileExistsError:
                return False
        return True

    def release(self, folder: str) -> None:
        """Removes the folder if it is empty."""
        with contextlib.suppress(OSError):
            (self._folder / folder).rmdir()

    def delete(self, name: str) -> None:
        """Deletes a file."""
        path = self._folder / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RegistryError(f"cannot delete {path}: {reason_of(error)}") from error

    def _make(self, folder: Path) -> None:
        """Creates a folder and its missing parents, which only their owner can read."""
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)


class ObjectStore:
    """A bucket: a put is atomic, and a list sees every put that ended before it began.

    S3, Google Cloud Storage and Azure promise both.
    """

    def __init__(self, url: str):
        from pyarrow import ArrowException, fs

        self._fs: Any = fs
        parts = urlsplit(url)  # user and query may be secrets
        host = parts.netloc.rpartition("@")[2]
        place = f"{parts.scheme}://{host}{parts.path}"
        try:
            self._files, self._root = fs.FileSystem.from_uri(url)
        except (ArrowException, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0].replace(url, place)
            raise RegistryError(f"cannot open the registry {place}: {reason}") from error
        self.place = place

    def names(self, folder: str) -> list[str]:
        """Lists the objects below a prefix."""
        return list(self.modified(folder))

    def folders(self, folder: str) -> list[str]:
        """Lists the first parts of the names of the objects below a prefix."""
        return sorted({name.partition("/")[0] for name in self.names(folder)})

    def modified(self, folder: str) -> dict[str, float]:
        """Lists the objects below a prefix with their times; there are no unfinished ones."""
        root = f"{self._root}/{folder}"
        selector = self._fs.FileSelector(root, recursive=True, allow_not_found=True)
        try:
            found = self._files.get_file_info(selector)
        except OSError as error:
            raise self._error("list", folder, error) from error
        is_file = self._fs.FileType.File
        return {
            # An object without a time counts as new.
            file.path[len(root) + 1 :]: file.mtime.timestamp() if file.mtime else time.time()
            for file in found
            if file.type == is_file
        }

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Returns an object's bytes; reads them in parts, because the size is not known."""
        parts, size = [], 0
        try:
            with self._files.open_input_stream(f"{self._root}/{name}") as stream:
                while part := stream.read(_CHUNK_BYTES):
                    parts.append(part)
                    size += len(part)
                    if size > limit_bytes:
                        raise RegistryError(
                            f"cannot read {self.place}/{name}: it has more than the "
                            f"{limit_bytes} bytes allowed"
                        )
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._error("read", name, error) from error
        return b"".join(parts)

    def write(self, name: str, data: bytes) -> None:
        """Puts an object."""
        try:
            with self._files.open_output_stream(f"{self._root}/{name}") as stream:
                stream.write(data)
        except OSError as error:
            raise self._error("write", name, error) from error

    def create(self, name: str, data: bytes) -> bool:
        """Claims the name, then puts the object.

        A writer that dies in between leaves a claim without an object.
        """
        if not self.claim(f"{name}{CLAIM_FOLDER}"):
            return False
        folder, _, file = name.rpartition("/")
        if file in self.names(folder):  # restored from a backup, which holds no claims
            return False
        self.write(name, data)
        return True

    def claim(self, folder: str) -> bool:
        """Writes a mark, then lists the folder; gives up if it finds another mark.

        Of two concurrent claims, the one whose mark came later sees the other's, so both may fail
        but never both succeed. Conditional puts would be simpler, but pyarrow.fs does not offer
        them.
        """
        mark = f"{CLAIM}{uuid.uuid4().hex}"
        self.write(f"{folder}/{mark}", b"claimed\n")
        if self.names(folder) == [mark]:
            return True
        self.delete(f"{folder}/{mark}")
        return False

    def release(self, folder: str) -> None:
        """Does nothing: the mark stays, because a failed put may still take effect later."""

    def delete(self, name: str) -> None:
        """Deletes an object."""
        try:
            self._files.delete_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error("delete", name, error) from error

    def _error(self, verb: str, name: str, error: OSError) -> RegistryUnavailableError:
        reason = str(error).partition("\n")[0]
        return RegistryUnavailableError(f"cannot {verb} {self.place}/{name}: {reason}")


def _unavailable(verb: str, path: Path, error: OSError) -> RegistryUnavailableError:
    return RegistryUnavailableError(f"cannot {verb} {path}: {reason_of(error)}")
