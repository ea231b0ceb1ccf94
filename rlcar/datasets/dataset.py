"""Reads a data set as a stream of episodes."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from rlcar.datasets.columns import (
    Rows,
    impossible_actions,
    non_finite,
    require_columns,
    rows_of,
)
from rlcar.datasets.description import (
    DESCRIPTION,
    Description,
    ObservationMoments,
    Part,
    World,
    read_description,
)
from rlcar.datasets.episode import Episode, Names
from rlcar.datasets.rotation import REPLACED
from rlcar.errors import DatasetError, reason_of
from rlcar.system import durable
from rlcar.types import Spec

_Read = TypeVar("_Read")


class Dataset:
    """The episodes in a folder; at most one part is in memory at a time.

    Opening checks the description and that every part is there in full size. Reading a part checks
    its columns, the order of its rows and its numbers, and at the first time its checksum.
    `rlcar.datasets.validation` checks everything else.
    """

    def __init__(self, folder: Path, description: Description):
        self.folder = folder
        self.description = description
        self._checked: set[int] = set()  # indices of parts

    @classmethod
    def open(cls, folder: str | Path) -> "Dataset":
        """Opens a data set; raises DatasetError if it is incomplete or of another format."""
        folder = Path(folder)
        description = read_description(folder)
        if not description.parts:
            raise DatasetError(f"{folder} holds no episodes: record some with rlcar data record")
        for part in description.parts:
            require_whole(folder, part)
        return cls(folder, description)

    @property
    def spec(self) -> Spec:
        """The sizes of observations and actions."""
        return self.description.spec

    @property
    def world(self) -> World:
        """The environment of the recording."""
        return self.description.world

    @property
    def episodes(self) -> int:
        """The number of episodes."""
        return self.description.episodes

    @property
    def transitions(self) -> int:
        """The number of transitions, over all episodes."""
        return self.description.transitions

    @property
    def moments(self) -> ObservationMoments | None:
        """Mean and standard deviation of the observations; None for images."""
        return self.description.moments

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted checksums of the parts: the lineage of what is learned."""
        return self.description.fingerprint

    @property
    def parts(self) -> list[Part]:
        """The parts, in the order of their episodes."""
        return self.description.parts

    def episodes_iter(
        self, seed: int | None = None, parts: Sequence[int] | None = None, skip: int = 0
    ) -> Iterator[Episode]:
        """Yields every episode of the parts with these indices, or of all parts.

        With a seed the order of the parts, and that of the episodes within a part, is random and
        the same for the same seed. `skip` leaves out the first episodes of that order; parts that
        hold only such episodes are not read. Only one part is in memory at a time.
        """
        order = np.arange(len(self.parts)) if parts is None else np.asarray(parts, np.int64)
        random = None if seed is None else np.random.default_rng(seed)
        if random is not None:
            order = random.permutation(order)
        for index in order.tolist():
            # Drawn for parts that are not read as well, so that `skip` does not change the order.
            numbers = np.arange(self.parts[index].episodes)
            if random is not None:
                numbers = random.permutation(numbers)
            if skip < len(numbers):
                yield from self._chosen_episodes(index, numbers[skip:])
            skip = max(0, skip - len(numbers))

    def part_episodes(self, index: int) -> Iterator[Episode]:
        """Yields the episodes of one part."""
        return self._chosen_episodes(index, np.arange(self.parts[index].episodes))

    def _chosen_episodes(self, index: int, numbers: np.ndarray) -> Iterator[Episode]:
        """Yields the episodes of one part with these numbers, counted from 0 in the part."""
        rows = self.read_part(index)
        bounds = episode_bounds(rows)
        for number in numbers:
            yield episode_of(rows, slice(bounds[number], bounds[number + 1]))

    def read_part(self, index: int) -> Rows:
        """Reads the rows of one part; raises DatasetError if they are not those of the format."""
        part = self.parts[index]
        path = self.folder / part.name
        if index not in self._checked:
            require_content(path, part)
            self._checked.add(index)
        rows = read_rows(path, self.spec)
        if len(rows.step) != part.transitions:
            raise DatasetError(
                f"{path} has {len(rows.step)} rows in place of {part.transitions}: "
                f"{check(self.folder)}"
            )
        bounds = episode_bounds(rows)
        starts, ends = bounds[:-1], bounds[1:] - 1
        is_step_in_order = rows.step == np.arange(len(rows.step)) - np.repeat(
            starts, np.diff(bounds)
        )
        is_ended = rows.is_terminal | rows.is_truncated
        if len(starts) != part.episodes or not is_step_in_order.all() or not is_ended[ends].all():
            raise DatasetError(
                f"{path} does not hold {part.episodes} whole episodes in order: "
                f"{check(self.folder)}"
            )
        for fault in itertools.chain(non_finite(rows), impossible_actions(rows, self.spec)):
            raise DatasetError(
                f"{path} (part {index + 1} of {len(self.parts)}){fault}: {check(self.folder)}"
            )
        return rows


def read_rows(path: Path, spec: Spec) -> Rows:
    """Reads a Parquet file; raises DatasetError if it is damaged or has other columns."""
    table = read_table(path, spec)
    try:
        return rows_of(table, spec)
    except DatasetError as error:
        raise DatasetError(f"{path}, {error}: record or import it again") from None


def read_table(path: Path, spec: Spec, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads a Parquet file, or those of the columns that it has; raises as `read_rows` does."""
    import pyarrow.parquet as pq  # simulators import this module, and read nothing

    def read(where: Path) -> pa.Table:
        # Not memory-mapped: the pages of a mapped file would count as memory of this process.
        with pq.ParquetFile(where, memory_map=False) as file:
            require_columns(file.schema_arrow, spec, str(path))
            found = file.schema_arrow.names
            return file.read([name for name in columns or found if name in found])

    try:
        return _where_it_lies(path, read)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: copy it again") from None
    except (pa.ArrowException, OSError) as error:
        reason = reason_of(error).partition("\n")[0]
        raise DatasetError(f"{path} cannot be read ({reason}): copy it again") from None


def episode_bounds(rows: Rows) -> np.ndarray:
    """Returns the row at which each episode begins, and the number of rows at the end."""
    changes = np.flatnonzero(np.diff(rows.episode)) + 1
    return np.concatenate([[0], changes, [len(rows.episode)]]).astype(np.int64)


def episode_of(rows: Rows, where: slice) -> Episode:
    """Returns the episode in consecutive rows."""
    last = where.stop - 1
    observation = np.concatenate(
        [rows.observation[where], rows.next_observation[last : where.stop]]
    )
    logp = rows.action_logp[where]
    return Episode(
        observation,
        rows.action[where],
        rows.reward[where],
        bool(rows.is_terminal[last]),
        bool(rows.is_truncated[last]),
        None if np.isnan(logp).any() else logp,
        _names(rows.policy[where]),
        _names(rows.source[where]),
    )


def _names(rows: np.ndarray) -> Names:
    """Returns the name that all rows have, or else the names of the rows."""
    return str(rows[0]) if (rows == rows[0]).all() else rows


def require_whole(folder: Path, part: Part) -> None:
    """Raises DatasetError if a part is missing or has another size than when it was written."""
    path = folder / part.name
    try:
        size = _where_it_lies(path, lambda where: where.stat().st_size)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({reason_of(error)}): copy it again") from None
    if size != part.bytes:
        state = "is cut off" if size < part.bytes else "has changed"
        raise DatasetError(
            f"{path} {state}: it has {size:,} bytes in place of {part.bytes:,}: copy it again"
        )


def checksum_of(path: Path) -> str:
    """Returns the SHA-256 of a part; raises DatasetError if it cannot be read."""
    try:
        return _where_it_lies(path, durable.checksum)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({reason_of(error)}): copy it again") from None


def require_content(path: Path, part: Part) -> None:
    """Raises DatasetError if a part is not the file that the description means."""
    if checksum_of(path) != part.sha256:
        raise DatasetError(
            f"{path} has changed: its SHA-256 is not that of {DESCRIPTION}: copy it again"
        )


def _where_it_lies(path: Path, read: Callable[[Path], _Read]) -> _Read:
    """Calls `read` with a part, or with the name that it has after a recording replaced it."""
    try:
        return read(path)
    except FileNotFoundError:
        return read(path.with_name(path.name + REPLACED))


def check(folder: Path) -> str:
    """Returns the advice to find the fault."""
    return f"rlcar data validate {folder} names the fault"
