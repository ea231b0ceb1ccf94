"""Reads recordings in the layout of D4RL: flat arrays of all steps, in HDF5, npz or memory.

`observations`, `actions`, `rewards` and `terminals` are required, and `timeouts` or
`next_observations`, which show where an episode was cut off. `infos/action_log_probs` is used if it
is there. Other arrays are ignored.

An episode ends at a terminal step, at a timeout, and where `next_observations` is not the
observation of the following row.

Without `next_observations` the observation after the last action of an episode is not known. After
a terminal step it has no influence, and the last observation is repeated. An episode that was cut
off ends one action earlier.
"""

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlcar.datasets.episode import Episode
from rlcar.errors import DatasetError, reason_of
from rlcar.system.regular_file import open_regular
from rlcar.types import Spec

REQUIRED = ("observations", "actions", "rewards", "terminals")
NEXT, TIMEOUTS, LOG_PROBABILITY = "next_observations", "timeouts", "infos/action_log_probs"
_ALL = (*REQUIRED, NEXT, TIMEOUTS, LOG_PROBABILITY)
_ONE_A_STEP = ("rewards", "terminals", TIMEOUTS, LOG_PROBABILITY)
_MOST_ACTIONS = 65_536
_ROWS = 65_536  # read at a time


class FlatRecording:
    """Flat arrays, in memory or on disk, that are read some rows at a time."""

    def __init__(self, arrays: Mapping[str, Any], name: str, action_limit: float):
        """Raises DatasetError if an array is missing or the lengths differ."""
        for key in REQUIRED:
            if key not in arrays:
                raise DatasetError(
                    f"{name} has no array {key!r}, so it is not in D4RL's layout; it has: "
                    f"{', '.join(sorted(map(str, arrays)))[:200]}"
                )
        self._arrays, self._name, self._limit = arrays, name, action_limit
        # Those of the environment, if it is known: a recording may not contain all of them.
        self.discrete_actions = 0
        for key in _ALL:
            if key in arrays:
                _require_rows_of_numbers(arrays[key], key, name)
        self.steps = len(arrays["rewards"])
        for key in _ALL:
            if key in arrays and len(arrays[key]) != self.steps:
                raise DatasetError(
                    f"{name}: {key!r} has {len(arrays[key])} rows, but 'rewards' has {self.steps}"
                )
        if NEXT not in arrays and TIMEOUTS not in arrays:
            raise DatasetError(
                f"{name} has neither {TIMEOUTS!r} nor {NEXT!r}, so it does not show where "
                f"episodes were cut off: add {TIMEOUTS!r}, true in the last step before each cut"
            )
        if NEXT in arrays and arrays[NEXT].shape[1:] != arrays["observations"].shape[1:]:
            raise DatasetError(
                f"{name}: {NEXT!r} has the shape {tuple(arrays[NEXT].shape)}, but 'observations' "
                f"has {tuple(arrays['observations'].shape)}"
            )
        if not self.steps:
            raise DatasetError(f"{name} has no steps")

    @property
    def spec(self) -> Spec:
        """The sizes of observations and actions."""
        observations, actions = self._arrays["observations"], self._arrays["actions"]
        if len(observations.shape) == 4 and observations.dtype == np.uint8:
            size, image = 0, tuple(observations.shape[1:])
        elif len(observations.shape) == 2:
            size, image = observations.shape[1], None
        else:
            raise DatasetError(
                f"{self._name}: 'observations' has the shape {tuple(observations.shape)}: it must "
                "be [steps, numbers], or [steps, height, width, channels] of uint8"
            )
        is_discrete = np.issubdtype(actions.dtype, np.integer)
        if is_discrete and (len(actions.shape) == 1 or actions.shape[1:] == (1,)):
            indices = np.asarray(actions[:])
            low, high = int(indices.min()), int(indices.max())
            if low < 0 or high >= _MOST_ACTIONS:
                raise DatasetError(
                    f"{self._name}: 'actions' has indices from {low} to {high}: they must lie "
                    f"between 0 and {_MOST_ACTIONS - 1}"
                )
            return Spec(size, max(high + 1, self.discrete_actions), True, image)
        if is_discrete or len(actions.shape) != 2:
            raise DatasetError(
                f"{self._name}: 'actions' has the shape {tuple(actions.shape)} of "
                f"{actions.dtype}: it must be [steps, numbers], or [steps] of whole numbers"
            )
        return Spec(size, actions.shape[1], False, image)

    def episodes(self) -> Iterator[Episode]:
        """Yields the episodes; an episode of which nothing is left is left out."""
        waiting: list[dict[str, np.ndarray]] = []
        for start in range(0, self.steps, _ROWS):
            rows = {
                key: np.asarray(self._arrays[key][start : start + _ROWS])
                for key in _ALL
                if key in self._arrays
            }
            self._require_ends(rows, start)
            is_end = rows["terminals"].astype(bool).reshape(-1)
            if TIMEOUTS in rows:
                is_end = is_end | rows[TIMEOUTS].astype(bool).reshape(-1)
            if NEXT in rows:
                further = np.asarray(
                    self._arrays["observations"][start + _ROWS : start + _ROWS + 1]
                )
                is_end = is_end | _is_jump(rows, further)
            begin = 0
            for end in (np.flatnonzero(is_end) + 1).tolist():
                waiting.append({key: array[begin:end] for key, array in rows.items()})
                yield from self._episode(waiting)
                waiting, begin = [], end
            if begin < len(is_end):
                waiting.append({key: array[begin:].copy() for key, array in rows.items()})
        if waiting:
            yield from self._episode(waiting)

    def _require_ends(self, rows: Mapping[str, np.ndarray], start: int) -> None:
        """Raises DatasetError if an end is NaN, which would count as true."""
        for key in ("terminals", TIMEOUTS):
            if key in rows and np.isnan(rows[key]).any():
                row = start + int(np.isnan(rows[key].reshape(-1)).argmax())
                raise DatasetError(
                    f"{self._name}, row {row}: {key!r} contains nan: it must be 0 or 1"
                )

    def _episode(self, pieces: Sequence[Mapping[str, np.ndarray]]) -> Iterator[Episode]:
        rows = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        observation, action = rows["observations"], rows["actions"]
        reward = rows["rewards"].reshape(-1)
        logp = rows.get(LOG_PROBABILITY)
        is_terminal = bool(rows["terminals"].reshape(-1)[-1])
        if NEXT in rows:
            observation = np.concatenate([observation, rows[NEXT][-1:]])
        elif is_terminal:
            observation = np.concatenate([observation, observation[-1:]])
        else:
            action, reward = action[:-1], reward[:-1]
            logp = None if logp is None else logp[:-1]
        if not len(reward):
            return
        logp = None if logp is None else logp.reshape(-1).astype(np.float32)
        if np.issubdtype(action.dtype, np.integer):
            action = action.reshape(-1).astype(np.int32)
        else:
            action = (action / np.asarray(self._limit, action.dtype)).astype(np.float32)
            if logp is not None:  # A density grows where the range shrinks.
                logp = logp + np.float32(action.shape[1] * math.log(self._limit))
        yield Episode(observation, action, reward, is_terminal, not is_terminal, logp)


def _require_rows_of_numbers(array: Any, key: str, name: str) -> None:
    """Raises DatasetError unless an array has rows of real numbers, or one number in each row."""
    shape, kind = tuple(array.shape), array.dtype
    if kind.kind not in "biuf":
        raise DatasetError(f"{name}: {key!r} is {kind}, not real numbers")
    if not shape or (key in _ONE_A_STEP and math.prod(shape[1:]) != 1):
        wanted = "[steps]" if key in _ONE_A_STEP else "[steps, numbers]"
        raise DatasetError(f"{name}: {key!r} has the shape {shape}: it must be {wanted}")


def _is_jump(rows: Mapping[str, np.ndarray], further: np.ndarray) -> np.ndarray:
    """Returns whether each row leads elsewhere than to the observation of the next row.

    `further` holds the observation after the last row, or nothing at the end of the recording.
    """
    is_jump = np.zeros(len(rows[NEXT]), bool)
    is_jump[:-1] = _is_other(rows[NEXT][:-1], rows["observations"][1:])
    if len(further):
        is_jump[-1:] = _is_other(rows[NEXT][-1:], further)
    return is_jump


def _is_other(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns in which rows the observations differ, as they are stored."""
    if first.dtype != np.uint8:
        with np.errstate(over="ignore"):
            first, second = first.astype(np.float32), second.astype(np.float32)
    # A NaN differs from itself; the writer refuses it and names the step.
    is_other = (first != second) & ~(np.isnan(first) & np.isnan(second))
    return is_other.any(axis=tuple(range(1, is_other.ndim)))


def joined(episodes: Sequence[Mapping[str, np.ndarray]], name: str) -> dict[str, np.ndarray]:
    """Returns flat arrays of recordings that hold one episode each."""
    keys = set(episodes[0]).intersection(*episodes[1:])
    for key in REQUIRED:
        if key not in keys:
            raise DatasetError(f"{name}: not every episode has an array {key!r}")
    timeouts = []
    for episode in episodes:
        is_timeout = np.zeros(len(episode["rewards"]), bool)
        is_timeout[-1:] = True  # Where the episode is terminal as well, that counts.
        timeouts.append(is_timeout)
    try:
        arrays = {key: np.concatenate([episode[key] for episode in episodes]) for key in keys}
    except ValueError as error:
        raise DatasetError(f"{name}: the episodes do not fit one another ({error})") from None
    return {**arrays, TIMEOUTS: np.concatenate(timeouts)}


@contextlib.contextmanager
def open_flat(path: Path, action_limit: float) -> Iterator[FlatRecording]:
    """Opens an HDF5 or npz file; raises DatasetError if it is damaged or of another kind."""
    if path.suffix == ".npz":
        yield FlatRecording(_read_npz(path), str(path), action_limit)
        return
    try:
        import h5py
    except ModuleNotFoundError:
        raise DatasetError("h5py is not installed: pip install 'rlcar[data]'") from None
    try:
        open_regular(path).close()  # HDF5 would wait for the writer of a FIFO
        file = h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(f"{path} is not an HDF5 file ({reason_of(error)[:100]})") from None
    with file:
        names = (*_ALL, *file)
        found = {key: file[key] for key in names if key in file}
        arrays = {key: value for key, value in found.items() if isinstance(value, h5py.Dataset)}
        yield FlatRecording(arrays, str(path), action_limit)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an npz file; raises DatasetError."""
    try:
        with open_regular(path) as file:
            if not zipfile.is_zipfile(file):
                raise DatasetError(
                    f"{path} is no complete npz file: write it with numpy.savez, or copy it again"
                )
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise DatasetError(
                f"{path} holds an array of objects, which could execute code: save its arrays as "
                "numbers"
            ) from None
        raise DatasetError(f"{path} cannot be read ({reason_of(error)})") from None
    except MemoryError:
        raise DatasetError(
            f"{path} does not fit into memory: save it as HDF5, which is read in pieces"
        ) from None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise DatasetError(f"{path} cannot be read ({reason_of(error)})") from None
