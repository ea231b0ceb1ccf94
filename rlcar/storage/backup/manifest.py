"""Snapshots: which files there were, with what modes and times, and the blobs that hold them.

A manifest may come from anywhere, so everything in it is checked: paths cannot leave the folder
that they are restored into, sizes and modes have limits, and nothing but plain files is described.
"""

import json
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, ValidationError

from rlcar.errors import StorageError, UserError
from rlcar.storage.backup.store import BackupStore, read_small, shown

FORMAT_VERSION = 1
MARKER, BLOBS, SNAPSHOTS = "rlcar-backup.json", "blobs", "snapshots"
RESTORING = ".restoring-"  # prefix of the folders that a restoration works in
# What can be backed up, in this order; the names are the first parts of the paths in a manifest.
PARTS = ("runs", "models", "data", "sweeps", "tokens")

_MAX_MANIFEST_BYTES = 1 << 27  # reading as much takes 1 GB of memory
_MAX_FILES = 500_000  # with paths of usual length, their manifest is just within that limit
_MAX_FILE_BYTES = 1 << 50
_MAX_PATH_BYTES, _MAX_NAME_BYTES = 4096, 255  # of Linux
_NAME = re.compile(r"(\d{6})-\d{8}T\d{6}Z-[0-9a-f]{4}")


def _safe_path(path: str) -> str:
    names = path.split("/")
    is_safe = names[0] in PARTS and not {"", ".", ".."} & set(names) and "\0" not in path
    if not is_safe or len(path.encode()) > _MAX_PATH_BYTES:
        raise ValueError(f"the path {path[:80]!r} leads out of the backup")
    if any(name.startswith(RESTORING) or len(name.encode()) > _MAX_NAME_BYTES for name in names):
        raise ValueError(f"the path {path[:80]!r} holds a name that no backup writes")
    return path


_Path = Annotated[str, AfterValidator(_safe_path)]
_Mode = Annotated[int, Field(ge=0, le=0o777)]
_Time = Annotated[int, Field(ge=0, lt=1 << 63)]
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class FileEntry(_Record):
    """One file; `changed_ns` is its ctime, which only the next backup uses."""

    path: _Path
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0, le=_MAX_FILE_BYTES)]
    mode: _Mode
    modified_ns: _Time
    changed_ns: _Time


class FolderEntry(_Record):
    """One folder."""

    path: _Path
    mode: _Mode
    modified_ns: _Time


class Skipped(_Record):
    """A file that is not in the snapshot, and why."""

    path: str
    reason: str


class Snapshot(_Record):
    """Everything that one backup found."""

    format_version: Annotated[int, Field(ge=1, le=1000)]
    name: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    started: str  # ISO 8601, UTC
    finished: str
    host: str
    rlcar: str
    commit: str | None
    sources: dict[str, str]  # part -> absolute folder
    parts: list[str]  # the parts that it holds now; retention removes some
    files: Annotated[list[FileEntry], FailFast()]  # not an error for each of millions
    folders: Annotated[list[FolderEntry], FailFast()]
    skipped: Annotated[list[Skipped], FailFast()]
    uploaded_bytes: _Count
    uploaded_blobs: _Count

    @property
    def sequence(self) -> int:
        """The number of the snapshot: later ones have higher numbers, whatever the clock says."""
        return sequence_of(self.name)

    @property
    def time(self) -> datetime:
        """When it began."""
        return datetime.fromisoformat(self.started)

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def lacking(self) -> list[Skipped]:
        """What is not in the snapshot; a file that was damaged at its source is in it."""
        held = {file.path for file in self.files}
        return [one for one in self.skipped if one.path not in held]


class NoBackupError(StorageError):
    """The place holds no backup."""


class Unreadable(NamedTuple):
    """A snapshot that cannot be read, and why."""

    name: str
    reason: str


def blob_name(digest: str) -> str:
    """Returns the name of the blob with that SHA-256."""
    return f"{BLOBS}/{digest[:2]}/{digest}"


def new_name(names: Iterable[str], now: datetime) -> str:
    """Returns the name of the next snapshot; names sort in the order of their making."""
    number = max((sequence_of(name) for name in names), default=0) + 1
    return f"{number:06d}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def reduced_name(name: str) -> str:
    """Returns the name of a snapshot after it was reduced: with the same number and time.

    It is the same each time, so an interrupted reduction is continued and not repeated.
    """
    digest = sha256(name.encode()).hexdigest()
    suffixes = (digest[start : start + 4] for start in range(0, 64, 4))
    return name[:-4] + next(one for one in suffixes if one != name[-4:])


def sequence_of(name: str) -> int:
    """Returns the number in a snapshot's name."""
    return int(name[:6])


def snapshot_names(store: BackupStore) -> list[str]:
    """Lists the names of the snapshots, oldest first."""
    found = (name.removesuffix(".json") for name in store.list(SNAPSHOTS))
    return sorted(name for name in found if _NAME.fullmatch(name))


def require_room_for(files: int) -> None:
    """Raises UserError, before anything is uploaded, for more files than a manifest can name."""
    if files > _MAX_FILES:
        raise UserError(
            f"the folders hold {files:,} files, more than the {_MAX_FILES:,} of one snapshot: "
            "back up some of the folders into another target"
        )


def write_snapshot(store: BackupStore, snapshot: Snapshot) -> None:
    """Writes a manifest, which holds its own checksum, under a name that is not in use.

    An object store may leave half of a large object behind if it fails, so a manifest is never
    replaced.
    """
    inner = snapshot.model_dump_json()
    digest = sha256(inner.encode()).hexdigest()
    data = f'{{"sha256": "{digest}", "snapshot": {inner}}}\n'.encode()
    if len(data) > _MAX_MANIFEST_BYTES:
        raise StorageError(
            f"the snapshot has {len(snapshot.files):,} files, and its manifest would have "
            f"{len(data):,} bytes of the {_MAX_MANIFEST_BYTES:,} allowed: back up some of the "
            "folders into another target"
        )
    store.write(f"{SNAPSHOTS}/{snapshot.name}.json", [data])


def read_snapshot(store: BackupStore, name: str) -> Snapshot:
    """Reads a manifest; raises StorageError if it is damaged, hostile or of a newer version."""
    place = f"{store.place}/{SNAPSHOTS}/{name}.json"
    try:
        data = read_small(store, f"{SNAPSHOTS}/{name}.json", _MAX_MANIFEST_BYTES)
        tree = json.loads(data)
        if tree["snapshot"]["format_version"] != FORMAT_VERSION:
            raise StorageError(
                f"{place} has format version "
                f"{shown(str(tree['snapshot']['format_version']), 20)}, and "
                f"this rlcar reads {FORMAT_VERSION}: install a newer one"
            )
        start = data.index(b'"snapshot": ') + len(b'"snapshot": ')
        if sha256(data[start:].rstrip()[:-1]).hexdigest() != tree["sha256"]:
            raise ValueError("its checksum differs")
        snapshot = Snapshot.model_validate(tree["snapshot"])
        _check(snapshot, name)
    except FileNotFoundError:
        raise StorageError(f"{place} is not there") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StorageError(f"{place} is refused: {shown(where)}: {first['msg']}") from None
    except (ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        reason = shown(str(error)) if isinstance(error, ValueError) else "it is incomplete"
        raise StorageError(f"{place} is damaged: {reason}") from None
    return snapshot


def _check(snapshot: Snapshot, name: str) -> None:
    if snapshot.name != name:
        raise ValueError(f"it calls itself {snapshot.name}")
    if not set(snapshot.parts) <= set(PARTS):
        raise ValueError(f"it holds unknown parts: {', '.join(snapshot.parts)[:100]}")
    if datetime.fromisoformat(snapshot.started).tzinfo is None:
        raise ValueError("its time has no time zone")
    files = {file.path for file in snapshot.files}
    folders = {folder.path for folder in snapshot.folders}
    if len(files) != len(snapshot.files) or len(folders) != len(snapshot.folders):
        raise ValueError("it names a path twice")
    for path in (*files, *folders):
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in files:
                raise ValueError(f"{path[:80]} is a file and a folder")
    if files & folders:
        raise ValueError(f"{min(files & folders)[:80]} is a file and a folder")


def find_snapshot(store: BackupStore, wanted: str) -> str:
    """Returns the name of a snapshot: its name, its number, or `latest`."""
    names = snapshot_names(store)
    if not names:
        raise StorageError(f"{store.place} holds no snapshot yet: make one with rlcar backup")
    if wanted == "latest":
        return names[-1]
    is_number = wanted.isascii() and wanted.isdecimal() and len(wanted) <= 6
    for name in names:
        if wanted == name or (is_number and int(wanted) == sequence_of(name)):
            return name
    raise StorageError(
        f"there is no snapshot {wanted[:40]!r} in {store.place}; there are: "
        f"{', '.join(names[-5:])}{', …' if len(names) > 5 else ''}"
    )


def read_snapshots(store: BackupStore) -> tuple[list[Snapshot], list[Unreadable]]:
    """Reads all manifests, oldest first; the second list names those that cannot be read."""
    good, bad = [], []
    for name in snapshot_names(store):
        try:
            good.append(read_snapshot(store, name))
        except StorageError as error:
            bad.append(Unreadable(name, str(error)))
    return good, bad


def require_backup(store: BackupStore) -> None:
    """Raises StorageError unless the place holds a backup of this format."""
    try:
        data = read_small(store, MARKER, 1 << 16)
    except FileNotFoundError:
        raise NoBackupError(
            f"{store.place} is not a backup: it has no {MARKER}; name the folder or URL that was "
            "given to rlcar backup"
        ) from None
    try:
        version = json.loads(data)["format_version"]
    except (ValueError, KeyError, TypeError):
        raise StorageError(
            f"{store.place}/{MARKER} is damaged: write {_marker_text().strip()} into it, if this "
            "is a backup"
        ) from None
    if version != FORMAT_VERSION:
        raise StorageError(
            f"{store.place} has format version {str(version)[:20]}, and this rlcar reads "
            f"{FORMAT_VERSION}: install a newer one"
        )


def begin_backup(store: BackupStore) -> None:
    """Writes the marker into an empty place; raises StorageError for one with other files."""
    try:
        require_backup(store)
    except NoBackupError:
        found = store.list("")
        if found:
            raise StorageError(
                f"{store.place} holds other files ({min(found)[:80]}) and no backup: name an empty "
                "folder, or one that does not exist yet"
            ) from None
        store.write(MARKER, [_marker_text().encode()])


def _marker_text() -> str:
    return json.dumps({"format_version": FORMAT_VERSION}) + "\n"


def now_utc() -> datetime:
    """Returns the time of this host."""
    return datetime.now(UTC)
