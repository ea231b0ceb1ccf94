"""The columns of a part: their Arrow types, and the conversion from and to NumPy.

| Column        | Type                         | Meaning                                         |
| ------------- | ---------------------------- | ----------------------------------------------- |
| `eps_id`      | int64                        | number of the episode in the data set           |
| `t`           | int32                        | step within the episode, from 0                 |
| `obs`         | float32 [O]; images: bytes   | observation before the action                   |
| `new_obs`     | as `obs`                     | observation after the action                    |
| `actions`     | float32 [A]; discrete: int32 | action in [-1, 1], or the index of the action   |
| `rewards`     | float32                      | reward for the action                           |
| `terminateds` | bool                         | the episode ended here with a crash or a finish |
| `truncateds`  | bool                         | it was cut off here by a limit or the recording |
| `action_logp` | float32, null if unknown     | log-probability density of the behaviour policy |
| `policy`      | dictionary of strings        | name of the behaviour policy                    |
| `source`      | dictionary of strings        | model, hold, fallback or human                  |

The names are those of Ray RLlib. Rows are ordered by episode and step, and each episode lies in one
part.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rlcar.datasets.episode import Episode, Names
from rlcar.errors import DatasetError
from rlcar.settings.explain import nearest
from rlcar.types import Array, Spec

DICTIONARY = ("policy", "source")
_ROWS = ("eps_id", "t", "obs", "new_obs", "actions", "rewards", "terminateds", "truncateds")
OPTIONAL = ("action_logp", *DICTIONARY)
ACTION_BOUND = 1.0 + 1e-6  # float32 arithmetic may exceed 1 by a rounding error


class Rows(NamedTuple):
    """M consecutive rows as NumPy arrays."""

    episode: np.ndarray  # [M] int64
    step: np.ndarray  # [M] int32
    observation: np.ndarray  # [M, O] float32 or [M, height, width, channels] uint8
    next_observation: np.ndarray  # as `observation`
    action: np.ndarray  # [M, A] float32 or [M] int32
    reward: np.ndarray  # [M] float32
    is_terminal: np.ndarray  # [M] bool
    is_truncated: np.ndarray  # [M] bool
    action_logp: np.ndarray  # [M] float32, NaN where unknown
    policy: np.ndarray  # [M] object: str
    source: np.ndarray  # [M] object: str


def arrow_schema(spec: Spec) -> pa.Schema:
    """Returns the Arrow schema of the parts of a data set."""
    observation = pa.binary() if spec.image_shape is not None else _numbers(spec.observation_size)
    action = pa.int32() if spec.is_discrete else _numbers(spec.action_size)
    names = pa.dictionary(pa.int32(), pa.string())
    fields = [
        pa.field("eps_id", pa.int64(), nullable=False),
        pa.field("t", pa.int32(), nullable=False),
        pa.field("obs", observation, nullable=False),
        pa.field("new_obs", observation, nullable=False),
        pa.field("actions", action, nullable=False),
        pa.field("rewards", pa.float32(), nullable=False),
        pa.field("terminateds", pa.bool_(), nullable=False),
        pa.field("truncateds", pa.bool_(), nullable=False),
        pa.field("action_logp", pa.float32()),
        pa.field("policy", names),
        pa.field("source", names),
    ]
    about = {} if spec.image_shape is None else {"image_shape": str(list(spec.image_shape))}
    return pa.schema(fields, about)


def require_columns(found: pa.Schema, spec: Spec, where: str) -> None:
    """Raises DatasetError unless the columns of a part are those of the format."""
    wanted = arrow_schema(spec)
    for name in found.names:
        if name not in wanted.names:
            raise DatasetError(
                f"{where} has a column {name!r}, which the format does not have"
                f"{nearest(name, wanted.names)}"
            )
    for field in wanted:
        if field.name not in found.names:
            if field.name in OPTIONAL:
                continue
            raise DatasetError(f"{where} has no column {field.name!r}: record or import it again")
        kind = found.field(field.name).type
        if not _is_like(kind, field.type):
            raise DatasetError(
                f"{where}: the column {field.name!r} is {kind} in place of {field.type}: "
                "record or import it again"
            )


def table_of(episodes: Sequence[Episode], first_episode: int, spec: Spec) -> pa.Table:
    """Converts checked episodes, numbered from `first_episode`, to the table of a part."""
    lengths = np.array([episode.transitions for episode in episodes])
    ends = lengths.cumsum() - 1
    is_terminal, is_truncated = np.zeros(lengths.sum(), bool), np.zeros(lengths.sum(), bool)
    is_terminal[ends] = [episode.is_terminal for episode in episodes]
    is_truncated[ends] = [episode.is_truncated for episode in episodes]
    action = np.concatenate([episode.action for episode in episodes])
    columns = [
        pa.array(np.repeat(np.arange(first_episode, first_episode + len(episodes)), lengths)),
        pa.array(np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])),
        _observations([episode.observation[:-1] for episode in episodes], spec),
        _observations([episode.observation[1:] for episode in episodes], spec),
        pa.array(action, pa.int32()) if spec.is_discrete else _lists(action),
        pa.array(np.concatenate([episode.reward for episode in episodes])),
        pa.array(is_terminal),
        pa.array(is_truncated),
        pa.concat_arrays([_log_probability(episode) for episode in episodes]),
        _repeated([episode.policy for episode in episodes], lengths),
        _repeated([episode.source for episode in episodes], lengths),
    ]
    return pa.Table.from_arrays(columns, schema=arrow_schema(spec))


def rows_of(table: pa.Table, spec: Spec) -> Rows:
    """Converts a table, or some of its rows, to NumPy arrays; most of them share its memory.

    Raises DatasetError that names the first row with a null or with an image of another size.
    """
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    for name in _ROWS:
        _require_values(name, columns[name])
    length = table.num_rows
    action = columns["actions"]
    if "action_logp" in columns:
        logp = columns["action_logp"].to_numpy(zero_copy_only=False).astype(np.float32)
    else:
        logp = np.full(length, np.nan, np.float32)
    return Rows(
        columns["eps_id"].to_numpy(),
        columns["t"].to_numpy(),
        _array(columns["obs"], spec),
        _array(columns["new_obs"], spec),
        action.to_numpy() if spec.is_discrete else _from_lists(action, spec.action_size),
        columns["rewards"].to_numpy(),
        columns["terminateds"].to_numpy(zero_copy_only=False),
        columns["truncateds"].to_numpy(zero_copy_only=False),
        logp,
        _texts(columns.get("policy"), length, ""),
        _texts(columns.get("source"), length, "model"),
    )


def non_finite(rows: Rows) -> Iterator[str]:
    """Yields where numbers are not finite, each as the end of a sentence that names the file."""
    for name, numbers in (
        ("obs", rows.observation),
        ("new_obs", rows.next_observation),
        ("actions", rows.action),
        ("rewards", rows.reward),
    ):
        if numbers.dtype.kind != "f":
            continue
        is_bad = ~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
        for row in np.flatnonzero(is_bad).tolist():
            bad = np.atleast_1d(numbers[row])
            yield f"{at(rows, row)}: {name} contains {bad[~np.isfinite(bad)][0]}"
    for row in np.flatnonzero(np.isinf(rows.action_logp)).tolist():
        yield f"{at(rows, row)}: action_logp contains {rows.action_logp[row]}"


def impossible_actions(rows: Rows, spec: Spec) -> Iterator[str]:
    """Yields where actions are out of range, each as the end of a sentence."""
    if spec.is_discrete:
        for row in np.flatnonzero((rows.action < 0) | (rows.action >= spec.action_size)).tolist():
            yield (
                f"{at(rows, row)}: the action {rows.action[row]} is not one of the "
                f"{spec.action_size} actions, 0 to {spec.action_size - 1}"
            )
        return
    is_bad = (np.abs(rows.action) > ACTION_BOUND).any(axis=1)
    for row in np.flatnonzero(is_bad).tolist():
        bad = rows.action[row]
        yield (
            f"{at(rows, row)}: actions contains {bad[np.abs(bad) > ACTION_BOUND][0]:g}, outside "
            "of -1 to 1"
        )


def at(rows: Rows, row: int) -> str:
    """Returns the episode and the step of a row, for messages."""
    return f", episode {rows.episode[row]}, step {rows.step[row]}"


def _numbers(size: int) -> pa.DataType:
    return pa.list_(pa.field("item", pa.float32(), nullable=False), size)


def _is_like(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether the types are equal, except for what other writers name or allow differently."""
    if pa.types.is_fixed_size_list(wanted):
        return (
            pa.types.is_fixed_size_list(kind)
            and kind.list_size == wanted.list_size
            and kind.value_type == wanted.value_type
        )
    if pa.types.is_dictionary(wanted):
        return pa.types.is_string(kind) or (
            pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type)
        )
    return kind == wanted


def _require_values(name: str, column: pa.Array) -> None:
    """Raises DatasetError that names the first row in which the column or a list has a null."""
    if column.null_count:
        row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        raise DatasetError(f"row {row}: the column {name!r} is null")
    if pa.types.is_fixed_size_list(column.type) and (numbers := column.flatten()).null_count:
        is_null = numbers.is_null().to_numpy(zero_copy_only=False)
        row = int(is_null.argmax()) // column.type.list_size
        raise DatasetError(f"row {row}: the column {name!r} contains null")


def _lists(numbers: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(numbers, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=_numbers(numbers.shape[1]))


def _from_lists(column: pa.Array, size: int) -> np.ndarray:
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)


def _observations(pieces: Sequence[Array], spec: Spec) -> pa.Array:
    if spec.image_shape is None:
        return _lists(np.concatenate(pieces))
    size = math.prod(spec.image_shape)
    data = np.concatenate(pieces).reshape(-1)
    offsets = np.arange(len(data) // size + 1, dtype=np.int32) * np.int32(size)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.BinaryArray.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def _array(column: pa.Array, spec: Spec) -> np.ndarray:
    if spec.image_shape is None:
        return _from_lists(column, spec.observation_size)
    size, length = math.prod(spec.image_shape), len(column)
    _, offset_buffer, data = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[column.offset : column.offset + length + 1]
    if (np.diff(offsets) != size).any():
        row = int(np.flatnonzero(np.diff(offsets) != size)[0])
        raise DatasetError(
            f"row {row}: the image has {offsets[row + 1] - offsets[row]} bytes in place of {size}"
        )
    pixels = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if length else np.zeros(0)
    return pixels.astype(np.uint8, copy=False).reshape(length, *spec.image_shape)


def _log_probability(episode: Episode) -> pa.Array:
    if episode.action_logp is None:
        return pa.nulls(episode.transitions, pa.float32())
    return pa.array(np.asarray(episode.action_logp, np.float32))


def _repeated(names: Sequence[Names], lengths: np.ndarray) -> pa.DictionaryArray:
    rows = [
        np.full(length, name, dtype=object) if isinstance(name, str) else name
        for name, length in zip(names, lengths.tolist(), strict=True)
    ]
    distinct, index = np.unique(np.concatenate(rows).astype(str), return_inverse=True)
    indices = pa.array(index.astype(np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array(distinct.tolist(), pa.string()))


def _texts(column: pa.Array | None, length: int, default: str) -> np.ndarray:
    if column is None:
        return np.full(length, default, dtype=object)
    if pa.types.is_dictionary(column.type):
        names = np.array([*column.dictionary.to_pylist(), default], dtype=object)
        return names[column.indices.fill_null(len(names) - 1).to_numpy()]
    return np.array(column.fill_null(default).to_pylist(), dtype=object)
