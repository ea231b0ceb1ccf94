"""Writes episodes into the parts of a data set."""

import contextlib
import fcntl
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from rlcar.datasets.columns import ACTION_BOUND, DICTIONARY, table_of
from rlcar.datasets.dataset import episode_bounds, episode_of, read_rows
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
from rlcar.datasets.episode import SOURCES, Episode, distinct
from rlcar.datasets.rotation import (
    FILE_BYTES,
    Rotation,
    bytes_of_step,
    leftovers,
    next_episode,
    next_number,
)
from rlcar.errors import DatasetError, UserError
from rlcar.system import durable
from rlcar.types import Spec

PART_TRANSITIONS = 65_536
PART_BYTES = 1 << 25  # of the observations, before compression
_LARGEST_EPISODE_BYTES = 1 << 30
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
        if self._rotation is not None:
            self._make_room(self._rotation.limit_bytes, episodes, keeping=len(joined))
        kept = self.description.parts[: len(self.description.parts) - len(joined)]
        part = self._write_part(episodes, next_episode(kept))
        self._describe([*kept, part])
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
        try:
            rows = read_rows(self._folder / last[0].name, self._spec)
        except DatasetError:  # It stays as it is, and `validate` names what is wrong.
            return [], []
        bounds = episode_bounds(rows)
        return last, [
            episode_of(rows, slice(*ends)) for ends in zip(bounds[:-1], bounds[1:], strict=True)
        ]

    def _make_room(self, limit_bytes: int, episodes: Sequence[Episode], keeping: int) -> None:
        """Deletes the oldest parts, but not the last ones, until one more part fits the limit."""
        steps = sum(episode.transitions for episode in episodes)
        new_bytes = steps * bytes_of_step(self._spec) + FILE_BYTES
        parts = list(self.description.parts)
        while (
            len(parts) > max(1, keeping)
            and sum(part.bytes for part in parts) + new_bytes > limit_bytes
        ):
            del parts[0]
        if len(parts) < len(self.description.parts):
            self._describe(parts)

    def _describe(self, parts: list[Part]) -> None:
        """Lists these parts in `dataset.json`, and then deletes those that were listed before."""
        new = self.description.with_parts(parts)
        write_description(self._folder, new)
        names = {part.name for part in parts}
        for part in self.description.parts:
            if part.name not in names:
                with contextlib.suppress(OSError):  # The next writer deletes what is left.
                    (self._folder / part.name).unlink()
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


def checked(episode: Episode, spec: Spec, name: str) -> Episode:
    """Returns the episode with arrays of the right types; raises DatasetError if it is invalid.

    `name` is that of the episode in messages.
    """
    observation = _of_type(episode.observation, spec.image_shape is not None, name, "observation")
    action = _action(episode.action, spec, name)
    reward = _of_type(episode.reward, False, name, "reward")
    steps = len(reward)
    if reward.ndim != 1 or not steps:
        raise DatasetError(
            f"{name} has rewards of the shape {reward.shape}: give one for each of at least one "
            "step"
        )
    shape = spec.image_shape or (spec.observation_size,)
    _require_shape(observation, (steps + 1, *shape), name, "observations")
    _require_shape(
        action, (steps,) if spec.is_discrete else (steps, spec.action_size), name, "actions"
    )
    logp = episode.action_logp
    if logp is not None:
        logp = _of_type(logp, False, name, "log-probability")
        _require_shape(logp, (steps,), name, "log-probabilities")
        require_finite(logp, name, "log-probability")
    require_finite(reward, name, "reward")
    require_finite(observation, name, "observation")
    if episode.is_terminal == episode.is_truncated:
        both = "is both terminal and truncated" if episode.is_terminal else "has no end"
        raise DatasetError(
            f"{name} {both}: set is_terminal for a crash or a finish, else is_truncated"
        )
    for names in (episode.policy, episode.source):
        if not isinstance(names, str):
            _require_shape(names, (steps,), name, "names of drivers")
    for source in distinct(episode.source):
        if source not in SOURCES:
            raise DatasetError(
                f"{name} has the source {source!r}: it must be one of {', '.join(SOURCES)}"
            )
    if math.prod(observation.shape) * observation.itemsize > _LARGEST_EPISODE_BYTES:
        raise DatasetError(
            f"{name} has {observation.nbytes:,} bytes of observations, more than the "
            f"{_LARGEST_EPISODE_BYTES:,} possible: cut it into several episodes"
        )
    return episode._replace(observation=observation, action=action, reward=reward, action_logp=logp)


def require_finite(numbers: np.ndarray, name: str, what: str) -> None:
    """Raises DatasetError that names the first step whose numbers are not finite."""
    if numbers.dtype == np.uint8:
        return
    is_bad = ~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
    if is_bad.any():
        step = int(is_bad.argmax())
        value = np.asarray(numbers[step]).reshape(-1)
        bad = value[~np.isfinite(value)][0]
        raise DatasetError(f"{name}, step {step}: the {what} contains {bad}: remove the episode")


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


def _of_type(numbers: object, is_image: bool, name: str, what: str) -> np.ndarray:
    array = np.asarray(numbers)
    if is_image:
        if array.dtype != np.uint8:
            raise DatasetError(f"{name}: the images are {array.dtype}: they must be uint8")
        return array
    is_real = np.issubdtype(array.dtype, np.number) and not np.iscomplexobj(array)
    if not (is_real or array.dtype == bool):
        raise DatasetError(f"{name}: the {what} is {array.dtype}, not numbers")
    with np.errstate(over="ignore"):  # An infinity that results is refused later.
        return array.astype(np.float32)


def _action(numbers: object, spec: Spec, name: str) -> np.ndarray:
    array = np.asarray(numbers)
    if spec.is_discrete:
        if not np.issubdtype(array.dtype, np.integer):
            raise DatasetError(f"{name}: the actions are {array.dtype}: give the index of each")
        is_bad = (array < 0) | (array >= spec.action_size)
        limits = f"0 to {spec.action_size - 1}"
        converted = array.astype(np.int32)
    else:
        converted = _of_type(array, False, name, "action")
        require_finite(converted, name, "action")
        is_bad = np.abs(converted) > ACTION_BOUND
        limits = "-1 to 1"
    if is_bad.any():
        step = int(np.argwhere(is_bad)[0, 0])
        value = array.reshape(len(array), -1)[step][is_bad.reshape(len(array), -1)[step]][0]
        raise DatasetError(
            f"{name}, step {step}: the action contains {value}, outside of {limits}: scale or "
            "clip the actions"
        )
    return converted


def _require_shape(array: np.ndarray, shape: tuple[int, ...], name: str, what: str) -> None:
    if array.shape != shape:
        raise DatasetError(f"{name} has {what} of the shape {array.shape} in place of {shape}")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
