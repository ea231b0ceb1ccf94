"""Storage of replay slots: in this process, or spread over shards in other processes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from rlcar.storage.arrays import Arrays, Rows
from rlcar.types import Batch, Spec

# (shape of a step, dtype)
Field = tuple[tuple[int, ...], np.dtype]
# Bytes of one field that are read from the shards at a time.
_PART_BYTES = 64 * 2**20


def fields_of(spec: Spec, carry_size: int = 0) -> dict[str, Field]:
    """Returns the arrays that are stored for each step; `carry` only if the policy has one."""
    fields: dict[str, Field] = {
        "observation": ((spec.observation_size,), np.dtype(np.float32)),
        "previous_action": ((spec.action_size,), np.dtype(np.float32)),
        "reward": ((), np.dtype(np.float32)),
        "is_first": ((), np.dtype(np.bool_)),
        "is_last": ((), np.dtype(np.bool_)),
        "is_terminal": ((), np.dtype(np.bool_)),
        "weights_version": ((), np.dtype(np.int32)),
    }
    if spec.image_shape is not None:
        fields["image"] = (spec.image_shape, np.dtype(np.uint8))
    if carry_size:
        fields["carry"] = ((carry_size,), np.dtype(np.float32))
    return fields


def row_bytes(spec: Spec, block_length: int, carry_size: int = 0) -> int:
    """Returns the size of one slot in bytes."""
    fields = fields_of(spec, carry_size).values()
    steps = (math.prod(shape) * dtype.itemsize for shape, dtype in fields)
    return block_length * sum(steps)


class Slots(Protocol):
    """Numbered slots, each of which holds an array `[T, ...]` for each field."""

    def write(self, slots: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
        """Stores rows `[n, T, ...]` in the slots with the numbers `slots` `[n]`."""

    def windows(self, slots: np.ndarray, starts: np.ndarray, length: int) -> Mapping[str, Any]:
        """Cuts windows `[*slots.shape, length, ...]` of each field of a batch out of slots."""

    def read(self, slots: np.ndarray) -> Mapping[str, Any]:
        """Returns whole slots, `[n, T, ...]` for each field, as arrays or as `Rows`."""


class Rings:
    """Slots in the memory of this process, which grows by doubling up to the capacity."""

    def __init__(self, spec: Spec, block_length: int, capacity: int, carry_size: int = 0) -> None:
        self._fields = fields_of(spec, carry_size)
        self._block_length, self._capacity = block_length, capacity
        self._batch_fields = [name for name in Batch._fields if name in self._fields]
        self._rings = self._allocate(0)

    def write(self, slots: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
        """Stores rows `[n, T, ...]` in the slots with the numbers `slots` `[n]`."""
        if len(slots):
            self._grow(int(slots.max()) + 1)
        for name, ring in self._rings.items():
            ring[slots] = rows[name]

    def windows(self, slots: np.ndarray, starts: np.ndarray, length: int) -> Arrays:
        """Cuts windows `[*slots.shape, length, ...]` of each field of a batch out of slots."""
        steps = (slots * self._block_length + starts)[..., None] + np.arange(length)
        return {name: self._by_step(name).take(steps, axis=0) for name in self._batch_fields}

    def read(self, slots: np.ndarray, names: Sequence[str] | None = None) -> Arrays:
        """Returns copies of whole slots, `[n, T, ...]` for each field."""
        return {name: self._rings[name][slots] for name in names or self._fields}

    def nbytes(self) -> int:
        """Returns the allocated memory in bytes."""
        return sum(ring.nbytes for ring in self._rings.values())

    def _by_step(self, name: str) -> np.ndarray:
        """Returns a view `[slots x T, ...]` of a field, in which one index selects a step."""
        ring = self._rings[name]
        return ring.reshape(ring.shape[0] * ring.shape[1], *self._fields[name][0])

    def _allocate(self, slots: int) -> Arrays:
        return {
            name: np.empty((slots, self._block_length, *shape), dtype)
            for name, (shape, dtype) in self._fields.items()
        }

    def _grow(self, slots: int) -> None:
        allocated = len(self._rings["reward"])
        if slots <= allocated:
            return
        rings = self._allocate(min(self._capacity, max(slots, 2 * allocated)))
        for name, ring in rings.items():
            ring[:allocated] = self._rings[name]
        self._rings = rings


class ShardCall(NamedTuple):
    """A call of a method of one shard."""

    shard: int
    method: str  # a method of Rings
    arguments: tuple[Any, ...]


class CallShards(Protocol):
    """A function that calls methods of shards."""

    def __call__(self, calls: Sequence[ShardCall]) -> list[Any]:
        """Makes the calls, in parallel if possible; returns their results in order."""


class ShardedRings:
    """Slots spread evenly over K shards, each of which is a `Rings` elsewhere: slot s mod K.

    Only the data of a batch or of a part of a checkpoint passes through this process.
    """

    def __init__(self, spec: Spec, block_length: int, shards: int, call: CallShards) -> None:
        self._fields, self._block_length = fields_of(spec), block_length
        self._shards, self._call = shards, call

    def write(self, slots: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
        """Stores rows `[n, T, ...]` in the slots with the numbers `slots` `[n]`."""
        self._call(
            [
                ShardCall(shard, "write", (own, {name: array[at] for name, array in rows.items()}))
                for shard, at, own in self._parts(slots)
            ]
        )

    def windows(self, slots: np.ndarray, starts: np.ndarray, length: int) -> Arrays:
        """Cuts windows `[*slots.shape, length, ...]` of each field of a batch out of slots."""
        parts, flat_starts = list(self._parts(slots.ravel())), starts.ravel()
        calls = [
            ShardCall(shard, "windows", (own, flat_starts[at], length)) for shard, at, own in parts
        ]
        flat = _assemble(slots.size, [at for _, at, _ in parts], self._call(calls))
        return {name: array.reshape(*slots.shape, *array.shape[1:]) for name, array in flat.items()}

    def read(self, slots: np.ndarray) -> dict[str, Rows]:
        """Returns whole slots by field; read them before the next write."""
        return {name: self._rows(name, slots) for name in self._fields}

    def _rows(self, name: str, slots: np.ndarray) -> Rows:
        shape, dtype = self._fields[name]

        def read(part: slice) -> np.ndarray:
            parts = list(self._parts(slots[part]))
            calls = [ShardCall(shard, "read", (own, [name])) for shard, _, own in parts]
            if not parts:
                return np.empty((0, self._block_length, *shape), dtype)
            return _assemble(len(slots[part]), [at for _, at, _ in parts], self._call(calls))[name]

        row_bytes = self._block_length * math.prod(shape) * dtype.itemsize  # 0 without a vector
        at_once = max(1, _PART_BYTES // max(1, row_bytes))
        return Rows((len(slots), self._block_length, *shape), dtype, read, at_once)

    def _parts(self, slots: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields each shard that holds some of `slots`, their indices, and their numbers there."""
        for shard in range(self._shards):
            at = np.flatnonzero(slots % self._shards == shard)
            if len(at):
                yield shard, at, slots[at] // self._shards


def _assemble(length: int, places: Sequence[np.ndarray], answers: Sequence[Arrays]) -> Arrays:
    """Joins the results of shards: row i of `answers[k]` becomes row `places[k][i]`."""
    whole = {}
    for name, first in answers[0].items():
        whole[name] = np.empty((length, *first.shape[1:]), first.dtype)
        for at, answer in zip(places, answers, strict=True):
            whole[name][at] = answer[name]
    return whole
