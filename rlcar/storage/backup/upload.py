"""Puts files into a backup, each once, and only those that it does not have yet."""

import dataclasses
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path

from rlcar.storage.backup.manifest import BLOBS, FileEntry, blob_name
from rlcar.storage.backup.store import CHUNK_BYTES, BackupStore
from rlcar.system.regular_file import open_regular

# Files up to this size are read once, into memory: for each transfer at once.
_IN_MEMORY_BYTES = 16 << 20
_ATTEMPTS = 3
# Only ever appended to: what was there when the reading began is a whole file.
_APPENDED = (".jsonl", ".log")
_TENSORBOARD = "events.out.tfevents."


class ChangingError(Exception):
    """A file changed each time it was read."""


class StoppedError(Exception):
    """The user asked to stop."""


class _SourceError(Exception):
    """A file could not be read to its end; its cause says why."""


@dataclasses.dataclass
class Counts:
    """What was done so far; several threads add to it."""

    total_bytes: int = 0  # an estimate, from a first look
    done_bytes: int = 0
    uploaded_bytes: int = 0
    uploaded_blobs: int = 0
    reread: int = 0  # files that changed while they were read

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, **amounts: int) -> None:
        """Adds to counters by their names."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)


class Uploader:
    """Makes the entry of a file, after its bytes are in the backup; threads may share it."""

    def __init__(
        self,
        store: BackupStore,
        before: Mapping[str, FileEntry],
        counts: Counts,
        should_stop: Callable[[], bool],
        *,
        should_hash_all: bool,
    ):
        """`before` are the files of the previous snapshot: unchanged ones are not read."""
        self._store, self._before, self.counts = store, before, counts
        self._made: dict[str, FileEntry] = {}  # a folder may be read twice
        self._should_stop, self._should_hash_all = should_stop, should_hash_all
        # A blob of another size is what an interrupted upload left: it is uploaded again.
        listed = store.list(BLOBS)
        self._sizes = {name.rpartition("/")[2]: info.size_bytes for name, info in listed.items()}

    def store_file(self, path: Path, name: str) -> FileEntry:
        """Returns the entry of a file under the name that it has in the backup.

        Raises FileNotFoundError if it is gone, ChangingError if it does not keep still, OSError if
        it cannot be read, and StorageError if the backup cannot be written.
        """
        for _ in range(_ATTEMPTS):
            with open_regular(path, follow_links=False) as file:
                status = os.fstat(file.fileno())
                try:
                    digest = self._known_digest(name, status) or self._put(file, status.st_size)
                except _SourceError as error:
                    raise error.args[0] from None
                after = os.fstat(file.fileno())
            if digest is not None and _is_same(status, after, path):
                if name not in self._made:
                    self.counts.add(done_bytes=status.st_size)
                entry = self._made[name] = _entry(name, digest, status)
                return entry
            self.counts.add(reread=1)
        raise ChangingError(str(path))

    def _known_digest(self, name: str, status: os.stat_result) -> str | None:
        """Returns the SHA-256 of a file that is as this or the previous backup has found it."""
        before = self._made.get(name)
        if before is None and not self._should_hash_all:
            before = self._before.get(name)
        if before is None:
            return None
        is_same = (before.size_bytes, before.modified_ns, before.changed_ns) == (
            status.st_size,
            *_times(status),
        )
        return before.sha256 if is_same and self._has(before.sha256, status.st_size) else None

    def _has(self, digest: str, size_bytes: int) -> bool:
        return self._sizes.get(digest) == size_bytes

    def _put(self, file: BufferedReader, size_bytes: int) -> str | None:
        """Returns the SHA-256 of a file's first bytes; None if it changed meanwhile."""
        if size_bytes <= _IN_MEMORY_BYTES:
            data = file.read(size_bytes)
            if len(data) < size_bytes:
                return None
            digest = hashlib.sha256(data).hexdigest()
            return digest if self._upload(digest, size_bytes, iter([data])) else None
        hasher = hashlib.sha256()
        for chunk in self._chunks(file, size_bytes):
            hasher.update(chunk)
        digest = hasher.hexdigest()
        file.seek(0)
        return digest if self._upload(digest, size_bytes, self._chunks(file, size_bytes)) else None

    def _upload(self, digest: str, size_bytes: int, chunks: Iterator[bytes]) -> bool:
        if self._has(digest, size_bytes):
            return True
        if self._should_stop():
            raise StoppedError
        if not self._store.write(blob_name(digest), chunks, digest):
            return False
        self._sizes[digest] = size_bytes
        self.counts.add(uploaded_bytes=size_bytes, uploaded_blobs=1)
        return True

    def _chunks(self, file: BufferedReader, size_bytes: int) -> Iterator[bytes]:
        left = size_bytes
        while left:
            if self._should_stop():
                raise StoppedError
            try:
                chunk = file.read(min(CHUNK_BYTES, left))
            except OSError as error:  # otherwise it would seem to be an error of the backup
                raise _SourceError(error) from error
            if not chunk:
                return
            left -= len(chunk)
            yield chunk


def _is_same(before: os.stat_result, after: os.stat_result, path: Path) -> bool:
    if path.name.endswith(_APPENDED) or path.name.startswith(_TENSORBOARD):
        return after.st_size >= before.st_size
    return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def _entry(name: str, digest: str, status: os.stat_result) -> FileEntry:
    modified_ns, changed_ns = _times(status)
    return FileEntry(
        path=name,
        sha256=digest,
        size_bytes=status.st_size,
        mode=stat.S_IMODE(status.st_mode) & 0o777,
        modified_ns=modified_ns,
        changed_ns=changed_ns,
    )


def _times(status: os.stat_result) -> tuple[int, int]:
    return max(0, status.st_mtime_ns), max(0, status.st_ctime_ns)
