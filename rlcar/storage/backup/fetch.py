"""Fetches blobs of a backup into files, and compares their checksums on the way."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlcar.errors import StorageError
from rlcar.storage.backup.manifest import FileEntry, blob_name
from rlcar.storage.backup.store import BackupStore, FolderStore
from rlcar.storage.backup.upload import Counts, StoppedError
from rlcar.system import durable
from rlcar.system.durable import checksum, write_new


class _SizeError(Exception):
    """A blob is longer or shorter than the file that it holds."""


class Fetch:
    """Writes blobs to files, and compares their checksums on the way."""

    def __init__(self, store: BackupStore, should_stop: Callable[[], bool], counts: Counts):
        self._store, self._should_stop, self._counts = store, should_stop, counts

    def files(self, paths: Iterator[tuple[FileEntry, Path]]) -> dict[FileEntry, str]:
        """Fetches files; returns those that are damaged in the backup, with the reasons."""
        damaged = {}
        with ThreadPoolExecutor(self._store.parallel, thread_name_prefix="restore") as pool:
            try:
                pending = {pool.submit(self._file, *pair): pair[0] for pair in paths}
                for future, entry in pending.items():
                    why = future.result()
                    if why:
                        damaged[entry] = why
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return damaged

    def _file(self, entry: FileEntry, path: Path) -> str:
        """Writes one file; returns why that is impossible, or nothing."""
        if self._should_stop():
            raise StoppedError
        with durable.explaining_write_errors(path):
            if self._is_there(entry, path):
                self._counts.add(done_bytes=entry.size_bytes)
            else:
                why = self._write(entry, path)
                if why:
                    path.unlink(missing_ok=True)
                    return why
            os.chmod(path, entry.mode)
            os.utime(path, ns=(entry.modified_ns, entry.modified_ns))
        return ""

    def _is_there(self, entry: FileEntry, path: Path) -> bool:
        """Whether an interrupted restoration has written the file already."""
        if not path.is_file() or path.stat().st_size != entry.size_bytes:
            return False
        os.chmod(path, 0o600)
        return checksum(path) == entry.sha256

    def _write(self, entry: FileEntry, path: Path) -> str:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        try:
            digest = write_new(path, self._chunks(entry), 0o600)
        except FileNotFoundError:
            return "its blob is missing"
        except _SizeError as error:
            return str(error)
        except StorageError as error:
            if not isinstance(self._store, FolderStore):
                raise  # the network, and not this blob
            return str(error)
        return "" if digest == entry.sha256 else "the checksum of its blob differs"

    def _chunks(self, entry: FileEntry) -> Iterator[bytes]:
        size_bytes = 0
        for chunk in self._store.chunks(blob_name(entry.sha256)):
            if self._should_stop():
                raise StoppedError
            size_bytes += len(chunk)
            if size_bytes > entry.size_bytes:
                raise _SizeError(f"its blob has more than {entry.size_bytes} bytes")
            self._counts.add(done_bytes=len(chunk))
            yield chunk
        if size_bytes < entry.size_bytes:
            raise _SizeError(f"its blob has {size_bytes} of {entry.size_bytes} bytes")
