"""Where versions are kept: a local folder, or any object store that pyarrow.fs reaches."""

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from rlcar.durable import sync_folder
from rlcar.errors import RegistryError

_WRITING = ".writing-"


class Store(Protocol):
    """Files by names such as `versions/00000007/manifest.json`; each is whole or absent."""

    place: str  # as messages name it

    def names(self, folder: str) -> list[str]:
        """Lists the files below a folder, relative to it, in any order."""
        ...

    def read(self, name: str) -> bytes:
        """Returns a file's bytes; raises FileNotFoundError."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, whole or not at all; replaces a former one."""
        ...

    def claim(self, folder: str) -> bool:
        """Takes a folder that nobody has; at most one of all who ever ask is told yes."""
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
        """Lists the files below a folder; links are not followed."""
        root = self._folder / folder
        found = []

        def refuse(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):  # deleted meanwhile, or not yet there
                reason = error.strerror or error
                raise RegistryError(f"cannot list {error.filename}: {reason}") from error

        for path, _, files in os.walk(root, onerror=refuse):
            inside = Path(path).relative_to(root)
            found += [(inside / file).as_posix() for file in files if _WRITING not in file]
        return found

    def read(self, name: str) -> bytes:
        """Returns a file's bytes; a symbolic link is refused, for it may lead anywhere."""
        path = self._folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RegistryError(f"cannot read {path}: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Writes through to the disk under another name, then renames."""
        path = self._folder / name
        partial = path.with_name(f"{_WRITING}{uuid.uuid4().hex}")
        try:
            self._make(path.parent)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            sync_folder(path.parent)
        except BaseException as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            if not isinstance(error, OSError):
                raise
            raise RegistryError(f"cannot write {path}: {error.strerror or error}") from error

    def claim(self, folder: str) -> bool:
        """Makes the folder, which succeeds once."""
        path = self._folder / folder
        try:
            self._make(path.parent)
            path.mkdir(mode=0o700)
            sync_folder(path.parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise RegistryError(f"cannot write {path}: {error.strerror or error}") from error
        return True

    def delete(self, name: str) -> None:
        """Deletes a file."""
        (self._folder / name).unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        """Makes a folder and its parents up to the registry's own, closed to others."""
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(mode=0o700, exist_ok=True)


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
        root = f"{self._root}/{folder}"
        selector = self._fs.FileSelector(root, recursive=True, allow_not_found=True)
        try:
            found = self._files.get_file_info(selector)
        except OSError as error:
            raise self._error("list", folder, error) from error
        is_file = self._fs.FileType.File
        return [one.path[len(root) + 1 :] for one in found if one.type == is_file]

    def read(self, name: str) -> bytes:
        """Returns an object's bytes."""
        try:
            with self._files.open_input_stream(f"{self._root}/{name}") as stream:
                return stream.read()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._error("read", name, error) from error

    def write(self, name: str, data: bytes) -> None:
        """Puts an object."""
        try:
            with self._files.open_output_stream(f"{self._root}/{name}") as stream:
                stream.write(data)
        except OSError as error:
            raise self._error("write", name, error) from error

    def claim(self, folder: str) -> bool:
        """Leaves a mark of its own, then looks: whoever sees another mark gives up.

        Of two that claim the same folder the one whose mark came later sees the other's, so both
        may lose but never both win; no conditional put is needed, which pyarrow.fs does not offer.
        """
        mark = f"claim-{uuid.uuid4().hex}"
        self.write(f"{folder}/{mark}", b"claimed\n")
        if self.names(folder) == [mark]:
            return True
        self.delete(f"{folder}/{mark}")
        return False

    def delete(self, name: str) -> None:
        """Deletes an object."""
        try:
            self._files.delete_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error("delete", name, error) from error

    def _error(self, verb: str, name: str, error: OSError) -> RegistryError:
        reason = str(error).partition("\n")[0]
        return RegistryError(f"cannot {verb} {self.place}/{name}: {reason}")
