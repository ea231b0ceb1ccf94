"""The data set of one server below the folder of all servers."""

import contextlib
import fcntl
import hashlib
import os
import socket
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from rlcar import __version__
from rlcar.datasets import DatasetWriter, Episode, World
from rlcar.datasets.description import DESCRIPTION, Source, describe, read_description
from rlcar.datasets.rotation import Rotation, next_episode
from rlcar.errors import DatasetError, UserError
from rlcar.system import durable
from rlcar.system.provenance import commit
from rlcar.types import Spec
from serve.recording.messages import Report

NOT_WRITTEN, OTHER_WORLD = "not written", "other world"
_MOST_SERVERS = 1024  # on one machine that record into the same folder


class Options(msgspec.Struct):
    """What the server tells the process that records."""

    folder: str
    name: str | None
    alias: str
    share: float
    limit_bytes: int
    flush_s: float
    expiry_s: float


@contextlib.contextmanager
def claimed(options: Options) -> Iterator[Path]:
    """Holds the first folder of this machine that no other running server has.

    A server that is started again therefore goes on with its data set. Raises UserError if the
    folder cannot be made.
    """
    base = Path(options.folder)
    machine = hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()
    prefix = options.name or f"server-{machine}"
    with durable.explaining_write_errors(base):
        base.mkdir(parents=True, exist_ok=True)
    for number in range(1, _MOST_SERVERS + 1):
        folder = base / f"{prefix}-{number}"
        with durable.explaining_write_errors(folder):
            descriptor = os.open(
                base / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666
            )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        except OSError:  # Some network file systems have no locks.
            pass
        try:
            with durable.explaining_write_errors(folder):
                folder.mkdir(exist_ok=True)
            yield folder
        finally:
            os.close(descriptor)
        return
    raise UserError(f"{base} holds {_MOST_SERVERS} recordings of running servers: name another one")


class RecordedFolder:
    """Writes episodes of one world; a failure loses the episodes in memory and is reported."""

    def __init__(self, path: Path, options: Options, lost: Counter[str]):
        """Adds to `lost` the steps that are not written, by reason."""
        self._path, self._options, self._lost = path, options, lost
        self._writer: DatasetWriter | None = None
        self._problem: str | None = None
        self._world_problem: str | None = None
        self._ended_s: float | None = None  # when the oldest episode that waits was added
        self._appended_steps = 0
        self._reported = (0, 0, 0)  # episodes, steps, deleted episodes

    def append(self, episode: Episode, world: World, spec: Spec, now_s: float) -> None:
        """Adds an episode."""
        writer = self._writer or self._open(world, spec)
        if writer is None:
            self._lost[NOT_WRITTEN] += episode.transitions
            return
        recorded = writer.description.world
        if not recorded.is_same(world):
            self._lost[OTHER_WORLD] += episode.transitions
            self._world_problem = (
                f"{self._path} holds episodes of the world {recorded.label}, and sessions drive "
                f"{world.label}: start the server with another --record for these"
            )
            return
        self._world_problem = None
        if self._ended_s is None:
            self._ended_s = now_s
        with self._noting_failure(writer):
            writer.append(episode)
            self._appended_steps += episode.transitions

    def flush_if_due(self, now_s: float) -> None:
        """Writes the episodes that wait, if the oldest has waited long enough."""
        if self._ended_s is not None and now_s - self._ended_s >= self._options.flush_s:
            self._flush()

    def close(self) -> None:
        """Writes the episodes that wait, and lets another server write here."""
        self._flush()
        self._close_writer()

    def report(self) -> Report:
        """Returns what was written since the last call, and the problem of now."""
        report = Report(problem=self._problem or self._world_problem)
        if self._writer is None:
            return report
        parts = self._writer.description.parts
        waiting = self._writer.transitions - self._writer.description.transitions
        now = (
            next_episode(parts),
            self._appended_steps - waiting,
            parts[0].first_episode if parts else 0,
        )
        report.episodes, report.steps, report.deleted_episodes = (
            after - before for before, after in zip(self._reported, now, strict=True)
        )
        self._reported = now
        report.bytes = sum(part.bytes for part in parts)
        return report

    def _open(self, world: World, spec: Spec) -> DatasetWriter | None:
        try:
            self._writer = DatasetWriter(
                self._path,
                describe(world, spec),
                self._source(),
                resume=True,
                rotation=Rotation(self._options.limit_bytes),
            )
        except DatasetError as error:
            self._problem = str(error)
            return None
        parts = self._writer.description.parts
        self._appended_steps = 0
        self._reported = (next_episode(parts), 0, parts[0].first_episode if parts else 0)
        return self._writer

    def _flush(self) -> None:
        self._ended_s = None
        if self._writer is None:
            return
        with self._noting_failure(self._writer):
            self._writer.flush()
            self._problem = None

    @contextlib.contextmanager
    def _noting_failure(self, writer: DatasetWriter) -> Iterator[None]:
        """Loses the episodes in memory after a failure; the next episode opens the folder anew."""
        try:
            yield
        except DatasetError as error:
            self._problem = str(error)
            self._lost[NOT_WRITTEN] += writer.discard()
            self._close_writer()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(DatasetError):
                writer.__exit__(None, None, None)

    def _source(self) -> Source | None:
        """Returns where the episodes are from, unless the data set says it already."""
        about: dict[str, str | int | float | bool | None | list[str]] = {
            "server": self._path.name,
            "alias": self._options.alias,
            "share": self._options.share,
            "commit": commit(),
            "rlcar": __version__,
        }
        if (self._path / DESCRIPTION).exists():
            with contextlib.suppress(DatasetError):
                for source in read_description(self._path).sources:
                    if about.items() <= source.about.items():
                        return None
        about["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        return Source(kind="server", about=about)
