"""Checks every number of a data set and names the file, the episode and the step of each fault."""

from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from rlcar.config.schema import Entry
from rlcar.datasets.columns import Rows, at, impossible_actions, non_finite
from rlcar.datasets.dataset import checksum_of, episode_bounds, read_rows, require_whole
from rlcar.datasets.description import (
    DESCRIPTION,
    Description,
    Part,
    moments_of,
    read_description,
)
from rlcar.datasets.episode import SOURCES
from rlcar.datasets.rotation import leftovers
from rlcar.errors import DatasetError

_SLACK = 1e-6  # of a range, for rounding
MOST_PROBLEMS = 20  # of one part


def validate(
    folder: Path, on_progress: Callable[[int], None] = lambda transitions: None
) -> Iterator[str]:
    """Yields one sentence for each fault; only one part is in memory at a time.

    Raises DatasetError if `dataset.json` cannot be read. `on_progress` is called with the number of
    transitions that are checked.
    """
    description = read_description(folder)
    if not description.parts:
        yield f"{folder / DESCRIPTION}: it lists no parts, so there are no episodes"
    seen: dict[int, int] = {}  # digest of an episode -> its number
    checked = 0
    # The oldest parts of a data set with a limited size may have been deleted.
    first_episode = description.parts[0].first_episode if description.parts else 0
    for index, part in enumerate(description.parts):
        where = f"{part.name} (part {index + 1} of {len(description.parts)})"
        if part.first_episode != first_episode:
            yield (
                f"{where}: its first episode is {part.first_episode} in place of {first_episode}"
            )
        for count, problem in enumerate(_part_problems(folder, description, part, seen)):
            if count == MOST_PROBLEMS:
                yield f"{where}: it has more than {MOST_PROBLEMS} faults; the others are not shown"
                break
            yield f"{where}{problem}"
        first_episode += part.episodes
        checked += part.transitions
        on_progress(checked)
    found = sorted(folder.glob("*.parquet"))
    description = read_description(folder)  # A recording may have added parts meanwhile.
    listed = {part.name for part in description.parts}
    listed |= {path.name for path in leftovers(folder, description)}
    for path in found:
        if path.name not in listed:
            yield f"{path.name}: {DESCRIPTION} does not list it: delete it, or import it"


def _part_problems(
    folder: Path, description: Description, part: Part, seen: dict[int, int]
) -> Iterator[str]:
    """Yields the faults of one part, each as the end of a sentence."""
    path = folder / part.name
    try:
        require_whole(folder, part)
        if checksum_of(path) != part.sha256:
            yield ": its SHA-256 is not that of dataset.json, so its content has changed"
        rows = read_rows(path, description.spec)
    except DatasetError as error:
        yield f": {error}"
        return
    if len(rows.step) != part.transitions:
        yield f": it has {len(rows.step)} rows in place of {part.transitions}"
    if not len(rows.step):
        return
    yield from _order_problems(rows, part)
    yield from _number_problems(rows, description)
    yield from _moments_problems(rows, part)
    yield from _repeated_problems(rows, seen)


def _order_problems(rows: Rows, part: Part) -> Iterator[str]:
    """Yields faults in the sequence of episodes and steps and in the ends of episodes."""
    bounds = episode_bounds(rows)
    starts, ends = bounds[:-1], bounds[1:] - 1
    numbers = rows.episode[starts]
    expected = part.first_episode + np.arange(len(starts))
    if len(starts) != part.episodes:
        yield f": it has {len(starts)} episodes in place of {part.episodes}"
    if not np.array_equal(numbers, expected):
        wrong = int(np.flatnonzero(numbers != expected)[0])
        yield f", episode {numbers[wrong]}: the number should be {expected[wrong]}"
    position = np.arange(len(rows.step)) - np.repeat(starts, np.diff(bounds))
    is_wrong = rows.step != position
    if is_wrong.any():
        row = int(is_wrong.argmax())
        yield f"{at(rows, row)}: t should be {position[row]}, so a step is missing or repeated"
    is_end = np.zeros(len(rows.step), bool)
    is_end[ends] = True
    both, any_end = rows.is_terminal & rows.is_truncated, rows.is_terminal | rows.is_truncated
    for row in np.flatnonzero(both).tolist():
        yield f"{at(rows, row)}: terminateds and truncateds are both true"
    for row in np.flatnonzero(any_end & ~is_end).tolist():
        yield f"{at(rows, row)}: the episode continues after its end"
    for row in np.flatnonzero(is_end & ~any_end).tolist():
        yield (
            f"{at(rows, row)}: the episode is cut off, because its last step is neither "
            "terminated nor truncated"
        )
    after = np.flatnonzero(~is_end[:-1])
    pixels = rows.observation[after + 1] != rows.next_observation[after]
    # A NaN differs from itself; it is reported as what it is.
    if rows.observation.dtype != np.uint8:
        pixels &= ~np.isnan(rows.next_observation[after])
    is_other = pixels.reshape(len(after), -1).any(axis=1) if len(after) else np.zeros(0, bool)
    for row in after[is_other].tolist():
        yield f"{at(rows, row)}: new_obs is not the obs of the next step"


def _number_problems(rows: Rows, description: Description) -> Iterator[str]:
    """Yields numbers that are not finite or out of range, and unknown sources."""
    yield from non_finite(rows)
    if rows.observation.dtype != np.uint8:
        yield from _range_problems(rows, "obs", rows.observation, description.observation)
        yield from _range_problems(rows, "new_obs", rows.next_observation, description.observation)
    if description.is_discrete:
        yield from impossible_actions(rows, description.spec)
    else:
        yield from _range_problems(rows, "actions", rows.action, description.action)
    for row in np.flatnonzero(~np.isin(rows.source.astype(str), SOURCES)).tolist():
        yield f"{at(rows, row)}: the source {rows.source[row]!r} is none of {', '.join(SOURCES)}"


def _range_problems(
    rows: Rows, column: str, numbers: np.ndarray, entries: list[Entry]
) -> Iterator[str]:
    for index, entry in enumerate(entries):
        low = -np.inf if entry.low is None else entry.low - _SLACK
        high = np.inf if entry.high is None else entry.high + _SLACK
        values = numbers[:, index]
        for row in np.flatnonzero((values < low) | (values > high)).tolist():
            yield (
                f"{at(rows, row)}: {entry.name} in {column} is {values[row]:g}, outside of "
                f"{entry.low} to {entry.high}"
            )


def _moments_problems(rows: Rows, part: Part) -> Iterator[str]:
    """Yields whether the description has other moments than the observations."""
    if part.moments is None:
        return
    ends = episode_bounds(rows)[1:] - 1
    observations = np.concatenate([rows.observation, rows.next_observation[ends]])
    if not np.isfinite(observations).all():
        return  # reported as what it is
    found = moments_of(observations)
    is_equal = found.count == part.moments.count
    is_equal &= np.allclose(found.mean, part.moments.mean, rtol=1e-6, atol=_SLACK)
    is_equal &= np.allclose(
        found.squares, part.moments.squares, rtol=1e-6, atol=_SLACK * found.count
    )
    if not is_equal:
        yield (
            f": the count, mean or squares in {DESCRIPTION} are not those of its observations; "
            "training would normalise them wrongly"
        )


def _repeated_problems(rows: Rows, seen: dict[int, int]) -> Iterator[str]:
    bounds = episode_bounds(rows)
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        digest = blake2b(digest_size=8)
        for field in (rows.observation, rows.action, rows.reward):
            digest.update(np.ascontiguousarray(field[start:end]).data)
        key, number = int.from_bytes(digest.digest(), "little"), int(rows.episode[start])
        if key in seen:
            yield f", episode {number}: it repeats episode {seen[key]}"
        else:
            seen[key] = number
