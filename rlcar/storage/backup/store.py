"""Where a backup is: a folder, or a bucket of any object store that pyarrow.fs supports."""

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from rlcar.errors import StorageError, reason_of
from rlcar.system.durable import WRITING, replacing, sync_folder, write_new
from rlcar.system.regular_file import open_regular

CHUNK_BYTES = 1 << 20
LOST_AND_FOUND = "lost+found"  # in the root of each ext4 volume; only root can read it
PARALLEL_FOLDER, PARALLEL_BUCKET = 4, 16  # transfers at once


class Stored(NamedTuple):
    """What a listing says about a file."""

    size_bytes: int
    modified_unix_s: float  # by the clock of the file system or of the object store


class BackupStore(Protocol):
    """Files with names such as `blobs/5f/5f0c…`; each is complete or absent.

    All methods raise StorageError if the place cannot be reached or refuses.
    """

    place: str  # for messages, without secrets
    parallel: int  # transfers at once

    def list(self, folder: str) -> dict[str, Stored]:
        """Lists the files below a folder by their names relative to it."""
        ...

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yields the bytes of a file; raises FileNotFoundError if it is absent."""
        ...

    def write(self, name: str, chunks: Iterable[bytes], sha256: str | None = None) -> bool:
        """Writes a file, completely or not at all; replaces an existing one.

        Returns False, and leaves no file, if the SHA-256 of the chunks is another one.
        """
        ...

    def delete(self, name: str) -> None:
        """Deletes a file, if there is one."""
        ...

    def sync(self) -> None:
        """Returns when everything written so far would survive a power failure."""
        ...


def open_store(location: str) -> BackupStore:
    """Opens a folder or a URL (s3://bucket/prefix, gs://bucket/prefix); creates nothing."""
    if not location.strip():
        raise StorageError("the backup's location is empty: name a folder or a URL")
    if "://" not in location:
        return FolderStore(Path(location))
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise StorageError(f"the backup's location is not an address: {error}") from None
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)))
    return BucketStore(location)


def read_small(store: BackupStore, name: str, limit_bytes: int) -> bytes:
    """Returns a file's bytes; raises StorageError if it has more than `limit_bytes`."""
    parts, size_bytes = [], 0
    for chunk in store.chunks(name):
        parts.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise StorageError(
                f"{store.place}/{name} has more than the {limit_bytes:,} bytes allowed: it is not "
                "part of a backup"
            )
    return b"".join(parts)


def shown(text: str, length: int = 200) -> str:
    """Returns text for a message: without control characters, and not longer than `length`.

    Names of files and the contents of a backup can hold line breaks and commands for terminals.
    """
    safe = (
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[:length]
    )
    return f"{''.join(safe)}{'…' if len(text) > length else ''}"


class FolderStore:
    """A folder that its owner alone can read."""

    parallel = PARALLEL_FOLDER

    def __init__(self, folder: Path):
        self.folder, self.place = folder, str(folder)
        self._changed: set[Path] = set()  # folders whose names have changed

    def list(self, folder: str) -> dict[str, Stored]:
        """Lists files; unfinished ones and links are left out."""
        root = self.folder / folder
        found: dict[str, Stored] = {}
        for path, folders, files in os.walk(root, onerror=self._refuse):
            folders[:] = [one for one in folders if one != LOST_AND_FOUND]
            for file in files:
                if file.startswith(WRITING):
                    continue
                full = Path(path, file)
                with contextlib.suppress(FileNotFoundError), self._explained("list", full):
                    status = full.lstat()
                    name = full.relative_to(root).as_posix()
                    found[name] = Stored(status.st_size, status.st_mtime)
        return found

    def chunks(self, name: str) -> Iterator[bytes]:
        """Reads a regular file; refuses links, which may lead anywhere."""
        path = self.folder / name
        with self._explained("read", path), open_regular(path, follow_links=False) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def write(self, name: str, chunks: Iterable[bytes], sha256: str | None = None) -> bool:
        """Fills a temporary file, syncs it, and renames it."""
        path = self.folder / name
        with self._explained("write", path):
            make_private_folder(path.parent)
            try:
                with replacing(path) as temporary:
                    written = write_new(temporary, chunks, 0o600)
                    if sha256 not in (None, written):
                        raise _ChangedError
            except _ChangedError:
                return False
        self._changed.add(path.parent)
        return True

    def delete(self, name: str) -> None:
        """Deletes a file."""
        path = self.folder / name
        with self._explained("delete", path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            self._changed.add(path.parent)

    def sync(self) -> None:
        """Syncs the folders; the files are synced already."""
        changed, self._changed = self._changed, set()  # a lease may be renewed meanwhile
        for folder in sorted({one for path in changed for one in (path, path.parent)}):
            with self._explained("write", folder):
                sync_folder(folder)

    def remove_unfinished(self, before_unix_s: float) -> None:
        """Deletes what killed processes have left half written, if it is older than that."""
        for path, _, files in os.walk(self.folder):
            for file in (Path(path, one) for one in files if one.startswith(WRITING)):
                with contextlib.suppress(FileNotFoundError), self._explained("delete", file):
                    if file.lstat().st_mtime < before_unix_s:
                        file.unlink()

    def _refuse(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise StorageError(
                f"cannot read the backup {error.filename}: {reason_of(error)}; name a folder that "
                "this user may read"
            ) from error

    @contextlib.contextmanager
    def _explained(self, verb: str, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and verb != "write":
                raise
            advice = ""
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                advice = (
                    "; the snapshots before are intact: free space, for example with rlcar backup "
                    "prune, and repeat the command"
                )
            elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                advice = "; run it as a user who may, or choose another place"
            raise StorageError(f"cannot {verb} {path}: {reason_of(error)}{advice}") from error


class BucketStore:
    """A bucket: a put is atomic, and a list sees every put that ended before it began."""

    parallel = PARALLEL_BUCKET

    def __init__(self, url: str):
        from pyarrow import ArrowException, fs

        from rlcar.storage.location import Location, connect, parse_storage

        parts = urlsplit(url)  # user and query may be secrets
        self.place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        self._fs: Any = fs
        self._errors = (OSError, ArrowException)
        if parts.scheme == "s3":
            self._location = parse_storage(url)
            self._root = self._location.path
            with self._explained():
                self._files = connect(self._location)
            return
        self._location = Location(False, parts.path, {})
        try:
            self._files, self._root = fs.FileSystem.from_uri(url)
        except (ArrowException, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0].replace(url, self.place)
            raise StorageError(f"cannot open the backup {self.place}: {reason}") from error

    def list(self, folder: str) -> dict[str, Stored]:
        """Lists the objects below a prefix."""
        root = f"{self._root}/{folder}".rstrip("/")
        selector = self._fs.FileSelector(root, recursive=True, allow_not_found=True)
        with self._explained():
            found = self._files.get_file_info(selector)
        return {
            info.path[len(root) + 1 :]: Stored(
                info.size, info.mtime.timestamp() if info.mtime else time.time()
            )
            for info in found
            if info.type == self._fs.FileType.File
        }

    def chunks(self, name: str) -> Iterator[bytes]:
        """Reads an object in parts."""
        with (
            self._explained(name),
            self._files.open_input_stream(f"{self._root}/{name}") as stream,
        ):
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def write(self, name: str, chunks: Iterable[bytes], sha256: str | None = None) -> bool:
        """Puts an object, in parts if it is large.

        pyarrow completes an upload even when an error ends it early, so such an object is deleted,
        unless it is still the one that was to be replaced. If that fails as well, its size tells
        that it is not complete: the last part is written after the checksum was compared.
        """
        path, digest = f"{self._root}/{name}", hashlib.sha256()
        with self._explained():
            before = self._files.get_file_info(path)
        try:
            with self._explained(), self._files.open_output_stream(path) as stream:
                last = b""
                for chunk in chunks:
                    digest.update(chunk)
                    stream.write(last)
                    last = chunk
                if sha256 not in (None, digest.hexdigest()):
                    raise _ChangedError
                stream.write(last)
        except _ChangedError:
            self.delete(name)
            return False
        except BaseException:
            with contextlib.suppress(StorageError), self._explained():
                now = self._files.get_file_info(path)
                if (now.type, now.size, now.mtime) != (before.type, before.size, before.mtime):
                    self.delete(name)
            raise
        return True

    def delete(self, name: str) -> None:
        """Deletes an object."""
        with contextlib.suppress(FileNotFoundError), self._explained(name):
            self._files.delete_file(f"{self._root}/{name}")

    def sync(self) -> None:
        """Does nothing: a put returns when the store has it."""

    @contextlib.contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        """Raises errors of pyarrow as StorageError; `name` may be absent, but not its bucket."""
        from rlcar.storage.location import explain

        try:
            yield
        except FileNotFoundError as error:
            bucket = self._root.partition("/")[0]
            if name and self._files.get_file_info(bucket).type != self._fs.FileType.NotFound:
                raise
            raise StorageError(
                f"cannot reach the storage {self.place}: there is no bucket {bucket!r}; check the "
                f"address, or create the bucket {bucket!r} first"
            ) from error
        except self._errors as error:
            raise StorageError(explain(self.place, self._location, error)) from error


class _ChangedError(Exception):
    """The bytes differ from what was announced."""


def make_private_folder(folder: Path) -> None:
    """Creates a folder and its missing parents, which only their owner can read."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
