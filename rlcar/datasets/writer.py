"""Writes episodes into the parts of a data set."""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from rlcar.datasets.checking import checked
from rlcar.datasets.columns import DICTIONARY, table_of
from rlcar.datasets.dataset import (
    episode_bounds,
    episode_of,
    read_rows,
    require_content,
    require_whole,
)
from rlcar.datasets.description import (
    DESCRIPTION,
    Description,
    Part,
    Source,
    moments_of,
    read_description,
    sizes,
    write_description,
)
from rlcar.datasets.episode import Episode
from rlcar.datasets.rotation import (
    FILE_BYTES,
    ReplacedParts,
    Rotation,
    bytes_of_step,
    leftovers,
    next_episode,
    next_number,
)
from rlcar.errors import DatasetError, UserError
from rlcar.system import durable

PART_TRANSITIONS = 65_536
PART_BYTES = 1 << 25  # of the observations, before compression
# Is called with the number of transitions that are done.
OnTransitions = Callable[[int], None]


class DatasetWriter:
    """Collects episodes and writes a part whenever enough of them are complete.

    A part and `dataset.json` are each complete or absent, so that a reader or a later writer finds
    every part that was finished, whatever ended this one. Leaving the context writes what is left.
    """

    def __init__(
        self,
        folder: Path,
        description: Description,
        source: Source | None = None,
        *,
        resume: bool = False,
        part_transitions: int = PART_TRANSITIONS,
        rotation: Rotation | None = None,
    ):
        """`description` gives world, schema and earlier sources; its parts are ignored.

        With `resume` the episodes are added to the data set in the folder, if there is one. With
        `rotation` its oldest parts are deleted where it would become too large. Raises DatasetError
        if it is of another world, or if the folder holds other files.
        """
        self._folder = folder
        self._rotation = rotation
        if rotation is not None:
            part_transitions = rotation.part_transitions(description.spec, part_transitions)
        self._part_transitions = part_transitions
        self._replaced = ReplacedParts(folder)
        self._waiting: list[Episode] = []
        self._waiting_transitions = self._waiting_bytes = 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(_only_writer(folder))
            self.description = _prepare(folder, description, resume)
            self._spec = self.description.spec
            if source is not None:
                sources = [*self.description.sources, source]
                self.description = self.description.model_copy(update={"sources": sources})
            write_description(folder, self.description)
            self._held = stack.pop_all()

    @property
    def episodes(self) -> int:
        """The number of episodes in the data set, including those that wait in memory."""
        return self.description.episodes + len(self._waiting)

    @property
    def transitions(self) -> int:
        """The number of transitions in the data set, including those that wait in memory."""
        return self.description.transitions + self._waiting_transitions

    def append(self, episode: Episode) -> None:
        """Adds an episode; raises DatasetError if it does not fit the schema or is not finite."""
        episode = checked(episode, self._spec, f"episode {self.episodes}")
        size = np.asarray(episode.observation).nbytes
        if self._waiting and self._waiting_bytes + size > PART_BYTES:
            self.flush()
        self._waiting.append(episode)
        self._waiting_transitions += episode.transitions
        self._waiting_bytes += size
        if self._waiting_transitions >= self._part_transitions or self._waiting_bytes >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes the episodes that wait as a part, however few they are."""
        if not self._waiting:
            return
        joined, earlier = self._small_last_part()
        episodes = [*earlier, *self._waiting]
        transitions = sum(episode.transitions for episode in episodes)
        self._make_room(transitions, keeping=len(joined))
        kept = self.description.parts[: len(self.description.parts) - len(joined)]
        part = self._write_part(episodes, next_episode(kept))
        # For the next part there is room already now, so that readers keep what this one replaces.
        self._describe(self._newest([*kept, part], max(transitions, self._part_transitions), 1))
        # These change only now: after an interruption, the next call writes the same part again.
        self._waiting = []
        self._waiting_transitions = self._waiting_bytes = 0

    def discard(self) -> int:
        """Forgets the episodes that wait; returns the number of their transitions."""
        lost, self._waiting = self._waiting_transitions, []
        self._waiting_transitions = self._waiting_bytes = 0
        return lost

    def _small_last_part(self) -> tuple[list[Part], list[Episode]]:
        """Returns the last part with its episodes if it should be joined with those that wait."""
        last = self.description.parts[-1:]
        if self._rotation is None or not last:
            return [], []
        if last[0].transitions + self._waiting_transitions > self._part_transitions:
            return [], []
        path = self._folder / last[0].name
        try:
            require_whole(self._folder, last[0])
            require_content(path, last[0])
            rows = read_rows(path, self._spec)
        except DatasetError:  # It stays as it is, and `validate` names what is wrong.
            return [], []
        bounds = episode_bounds(rows)
        return last, [
            episode_of(rows, slice(*ends)) for ends in zip(bounds[:-1], bounds[1:], strict=True)
        ]

    def _make_room(self, transitions: int, keeping: int) -> None:
        """Deletes the oldest parts, but not the last ones, until a part of this size fits."""
        if self._rotation is None:
            return
        parts = self._newest(self.description.parts, transitions, max(1, keeping))
        if len(parts) < len(self.description.parts):
            self._describe(parts)
        used_bytes = sum(part.bytes for part in parts) + self._bytes_of(transitions)
        self._replaced.delete_some(self._rotation.limit_bytes - used_bytes)

    def _newest(self, parts: Sequence[Part], transitions: int, keeping: int) -> list[Part]:
        """Returns the newest parts that leave room below the limit for one of this size."""
        newest = list(parts)
        if self._rotation is None:
            return newest
        most_bytes = self._rotation.limit_bytes - self._bytes_of(transitions)
        while len(newest) > keeping and sum(part.bytes for part in newest) > most_bytes:
            del newest[0]
        return newest

    def _bytes_of(self, transitions: int) -> int:
        """Returns the size of a part before compression."""
        return transitions * bytes_of_step(self._spec) + FILE_BYTES

    def _describe(self, parts: list[Part]) -> None:
        """Lists these parts in `dataset.json`, and then sets the others aside for readers."""
        new = self.description.with_parts(parts)
        write_description(self._folder, new)
        names = {part.name for part in parts}
        for part in self.description.parts:
            if part.name not in names:
                self._replaced.add(part)
        self.description = new

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._held:
            if error is None:
                self.flush()
                return
            with contextlib.suppress(UserError, OSError):  # The first error is the one to report.
                self.flush()

    def _write_part(self, episodes: Sequence[Episode], first_episode: int) -> Part:
        import pyarrow.parquet as pq  # simulators import this module, and write nothing

        name = f"part-{next_number(self.description.parts):05d}.parquet"
        path = self._folder / name
        table = table_of(episodes, first_episode, self._spec)
        with durable.explaining_write_errors(path, DatasetError), durable.replacing(path) as file:
            pq.write_table(table, file, compression="zstd", use_dictionary=list(DICTIONARY))
            _sync(file)
            size, sha256 = file.stat().st_size, durable.checksum(file)
        with durable.explaining_write_errors(path, DatasetError):
            durable.sync_folder(self._folder)  # before the description names the part
        moments = None
        if self._spec.image_shape is None:
            moments = moments_of(np.concatenate([episode.observation for episode in episodes]))
        return Part(
            name=name,
            episodes=len(episodes),
            transitions=table.num_rows,
            first_episode=first_episode,
            bytes=size,
            sha256=sha256,
            moments=moments,
        )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside a new one; renames it at the end, or removes it.

    A data set that is made at once, such as an import, is therefore whole or absent. Raises
    DatasetError if the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} exists and is not empty: name a new folder")
    temporary = folder.with_name(f"{durable.WRITING}{uuid.uuid4().hex}")
    try:
        with durable.explaining_write_errors(folder, DatasetError):
            temporary.mkdir(parents=True)
        yield temporary
        with durable.explaining_write_errors(folder, DatasetError):
            os.replace(temporary, folder)
            durable.sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Makes the folder and locks it; raises DatasetError if another process writes into it."""
    with durable.explaining_write_errors(folder, DatasetError):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DatasetError(
            f"another process writes into {folder}: wait until it has ended, or stop it"
        ) from None
    except OSError:  # Some network file systems lock no folders.
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def _prepare(folder: Path, description: Description, resume: bool) -> Description:
    """Returns the description of what the folder holds already, or of an empty data set."""
    fresh = description.with_parts([])
    if not (folder / DESCRIPTION).exists():
        others = [entry.name for entry in folder.iterdir() if not _is_leftover(entry.name)]
        if others:
            raise DatasetError(
                f"{folder} holds {sorted(others)[0]} and is no data set: name a new folder"
            )
        return fresh
    if not resume:
        raise DatasetError(
            f"{folder} already holds a data set: name a new folder, or add to it with --resume"
        )
    found = read_description(folder)
    require_same(folder, found, fresh)
    writing = [entry for entry in folder.iterdir() if entry.name.startswith(durable.WRITING)]
    for entry in [*writing, *leftovers(folder, found)]:  # of a writer that was killed
        with durable.explaining_write_errors(entry, DatasetError):
            entry.unlink(missing_ok=True)
    return found


def require_same(folder: Path, found: Description, other: Description) -> None:
    """Raises DatasetError unless two data sets have the same world and schema."""
    if not found.world.is_same(other.world):
        differing = found.world.first_difference(other.world)
        detail = (
            f" ({differing.setting} is {differing.first} and not {differing.second})"
            if differing
            else ""
        )
        raise DatasetError(
            f"{folder} holds episodes of another world ({found.world.label}) than "
            f"{other.world.label}{detail}: use a folder for each world"
        )
    if found.spec != other.spec:
        raise DatasetError(
            f"{folder} has {sizes(found.spec)}, not {sizes(other.spec)}: use a folder for each"
        )


def _is_leftover(name: str) -> bool:
    return name.startswith(durable.WRITING)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
