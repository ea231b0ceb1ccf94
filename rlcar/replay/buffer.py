"""Memory of past driving: blocks of trajectories in, random windows out."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlcar.config import ReplayConfig
from rlcar.errors import CheckpointError, NonFiniteError
from rlcar.replay.rings import Rings, Slots, fields_of
from rlcar.types import Batch, Metrics, Spec, Trajectory

_UINT64_MASK = (1 << 64) - 1
_ROWS_AT_ONCE = 1024


def slots_of(config: ReplayConfig, block_length: int) -> int:
    """How many blocks of one car fit."""
    return config.capacity_env_steps // block_length


class Replay:
    """Rings of sequences, one slot `[T]` for each car of each block; the oldest is overwritten.

    T is `block_length`. Memory grows with what is stored, up to the capacity. Windows are drawn
    with equal chance over slots and start positions, from a generator that is part of the state.
    Not for use by two threads at once.
    """

    def __init__(
        self,
        config: ReplayConfig,
        spec: Spec,
        block_length: int,
        seed: int,
        slots: Slots | None = None,
        carry_size: int = 0,
    ) -> None:
        """Raises ValueError when no window fits a block, or no block the capacity.

        The steps lie in `slots`, by default in this process; `carry_size` is the policy's.
        """
        self._capacity = slots_of(config, block_length)
        if config.batch_length > block_length:
            raise ValueError(
                f"replay.batch_length {config.batch_length} is longer than a block of "
                f"{block_length} steps: windows are cut out of blocks"
            )
        if self._capacity < 1:
            raise ValueError(
                f"replay.capacity_env_steps {config.capacity_env_steps} holds no block of "
                f"{block_length} steps: raise it"
            )
        self._batch_size = config.batch_size
        self._batch_length = config.batch_length
        self._block_length = block_length
        self._fields = fields_of(spec, carry_size)
        self._slots = slots or Rings(spec, block_length, self._capacity, carry_size)
        self._versions = np.zeros(0)  # mean weights version of each slot
        self._size = 0  # slots in use
        self._next = 0  # slot to be written next
        self._slots_inserted = 0
        self._rng = np.random.Generator(np.random.PCG64(seed))

    @property
    def env_steps_stored(self) -> int:
        """Env steps in memory now."""
        return self._size * self._block_length

    @property
    def slots_inserted(self) -> int:
        """Slots ever written into this object: a mark that `state_since` takes."""
        return self._slots_inserted

    def insert(self, trajectory: Trajectory) -> None:
        """Copies a block `[T, N, …]` in, any N that the capacity holds.

        Raises ValueError for a wrong shape or dtype, NonFiniteError for a NaN or an infinity; then
        nothing has been stored.
        """
        block = {name: np.asarray(getattr(trajectory, name)) for name in self._fields}
        cars = self._check_block(block)
        slots = (self._next + np.arange(cars)) % self._capacity
        self._write(slots, {name: np.swapaxes(array, 0, 1) for name, array in block.items()})
        self._next = int((self._next + cars) % self._capacity)
        self._size = min(self._capacity, self._size + cars)
        self._slots_inserted += cars

    def sample(self, updates: int) -> Batch:
        """Draws windows, leaves `[updates, B, L, …]`, where the slots' are; they are the caller's.

        Raises ValueError when nothing is stored.
        """
        if not self._size:
            raise ValueError("cannot sample from an empty replay: insert a trajectory first")
        shape = (updates, self._batch_size)
        slots = self._rng.integers(self._size, size=shape)
        starts = self._rng.integers(self._block_length - self._batch_length + 1, size=shape)
        return Batch(**self._slots.windows(slots, starts, self._batch_length))

    def everything(self) -> Batch:
        """Returns all that is stored, whole blocks in order, leaves `[1, slots, T, …]`."""
        rows = self._slots.read(np.arange(self._size))
        names = [name for name in Batch._fields if name in rows]
        return Batch(**{name: np.asarray(rows[name])[None] for name in names})

    def metrics(self, current_version: int) -> Metrics:
        """Returns the size, and how many updates ago the stored steps were driven, on average."""
        age = 0.0
        if self._size:
            age = current_version - float(self._versions[: self._size].mean())
        return {
            "replay/size_env_steps": float(self.env_steps_stored),
            "replay/age_updates": age,
        }

    def check_valid(self) -> tuple[bool, str]:
        """Returns whether all invariants hold, and which does not, by slot and step."""
        if not (0 <= self._size <= self._capacity and self._next < self._capacity):
            return False, f"counts: {self._size} of {self._capacity} slots, next {self._next}"
        if self._size < self._capacity and self._next != self._size:
            return False, f"counts: next slot is {self._next} after {self._size}"
        rows = self._slots.read(np.arange(self._size))
        rings = {name: np.asarray(array) for name, array in rows.items()}
        is_first, is_last = rings["is_first"], rings["is_last"]
        after_last = np.zeros_like(is_last)
        after_last[:, 1:] = is_last[:, :-1]
        problems = {
            "is_terminal but not is_last": rings["is_terminal"] & ~is_last,
            "follows is_last but is not is_first": after_last & ~is_first,
            "is_first but has a reward": is_first & (rings["reward"] != 0.0),
            "reward is not finite": ~np.isfinite(rings["reward"]),
            "observation is not finite": ~np.isfinite(rings["observation"]).all(-1),
            "previous_action is not finite": ~np.isfinite(rings["previous_action"]).all(-1),
        }
        for problem, where in problems.items():
            if where.any():
                slot, step = np.argwhere(where)[0]
                return False, f"slot {slot}, step {step}: {problem}"
        return True, ""

    def state(self) -> dict[str, Any]:
        """Returns all there is, the random generator included.

        Copies; or `Rows`, good until the next insert, where the steps lie elsewhere.
        """
        return {**self._slots.read(np.arange(self._size)), **self._position()}

    def state_since(self, mark: int) -> dict[str, Any]:
        """Returns as `state` the slots written since `slots_inserted` was `mark`, oldest first.

        With the whole state of that moment it is the whole state of now.
        """
        slots = self._newest(min(self._slots_inserted - mark, self._size), self._next)
        return {**self._slots.read(slots), **self._position()}

    def restore(self, state: Mapping[str, Any], since: Mapping[str, Any] | None = None) -> None:
        """Goes on exactly where `state`, or `state_since` after it, was taken; copies the arrays.

        Raises CheckpointError, and changes nothing, when one is of another layout.
        """
        size, next_slot = self._check_state(state, None)
        newest = state if since is None else since
        rng = _unpack_rng(np.asarray(newest["rng"]))
        final_size, final_next = size, next_slot
        if since is not None:
            final_size, final_next = self._check_state(since, (size, next_slot))
        self._write_rows(np.arange(size), state)
        if since is not None:
            self._write_rows(self._newest(len(since["reward"]), final_next), since)
        self._size, self._next, self._rng = final_size, final_next, rng

    def _write(self, slots: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
        self._slots.write(slots, rows)
        last = int(slots.max()) + 1
        if last > len(self._versions):
            more = max(last, 2 * len(self._versions)) - len(self._versions)
            self._versions = np.append(self._versions, np.zeros(more))
        self._versions[slots] = rows["weights_version"].mean(1, dtype=np.float64)

    def _write_rows(self, slots: np.ndarray, rows: Mapping[str, Any]) -> None:
        """Stores what may be too much to hold twice, part by part."""
        for start in range(0, len(slots), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            self._write(slots[part], {name: rows[name][part] for name in self._fields})

    def _position(self) -> dict[str, np.ndarray]:
        position = [self._capacity, self._size, self._next]
        return {"position": np.array(position, np.int64), "rng": _pack_rng(self._rng)}

    def _newest(self, number: int, next_slot: int) -> np.ndarray:
        return (next_slot - number + np.arange(number)) % self._capacity

    def _check_state(
        self, state: Mapping[str, Any], before: tuple[int, int] | None
    ) -> tuple[int, int]:
        """Returns size and next slot; raises for a state that does not fit, here or `before`."""
        missing = {*self._fields, "position", "rng"} - set(state)
        if missing:
            raise CheckpointError(f"the saved replay has no {', '.join(sorted(missing))}")
        capacity, size, next_slot = (int(number) for number in state["position"])
        if capacity != self._capacity:
            raise CheckpointError(
                f"the saved replay has {capacity} slots of {self._block_length} steps, this one "
                f"{self._capacity}: resume with the same replay.capacity_env_steps"
            )
        rows = size if before is None else len(state["reward"])
        for name, (shape, dtype) in self._fields.items():
            expected = (rows, self._block_length, *shape)
            if state[name].shape != expected or state[name].dtype != dtype:
                raise CheckpointError(
                    f"the saved replay's {name} is {_describe(state[name])}, "
                    f"expected {list(expected)} {dtype}: resume with the same config"
                )
        if before is not None:
            follows = (min(capacity, before[0] + rows), (before[1] + rows) % capacity)
            if rows < capacity and follows != (size, next_slot):
                raise CheckpointError(
                    f"the saved replay's newest {rows} slots do not follow the saved whole "
                    f"({before[0]} slots): resume from another checkpoint"
                )
        return size, next_slot

    def _check_block(self, block: Mapping[str, np.ndarray]) -> int:
        """Returns the number of cars; raises for the first array that is not as it must be."""
        observation = block["observation"]
        cars = observation.shape[1] if observation.ndim == 3 else -1
        for name, (shape, dtype) in self._fields.items():
            array = block[name]
            if array.shape != (self._block_length, cars, *shape) or array.dtype != dtype:
                axes = ", ".join(map(str, (self._block_length, "N" if cars < 0 else cars, *shape)))
                raise ValueError(
                    f"trajectory.{name} is {_describe(array)}, expected [{axes}] {dtype}"
                )
            if dtype == np.float32 and not np.isfinite(array).all():
                where = tuple(np.argwhere(~np.isfinite(array))[0])
                raise NonFiniteError(
                    f"trajectory.{name} is {array[where]} at step {where[0]} of car {where[1]}: "
                    "the simulator or the policy produced it"
                )
        if not 1 <= cars <= self._capacity:
            raise ValueError(
                f"a trajectory of {cars} cars does not fit: the replay holds 1 to "
                f"{self._capacity} of them; raise replay.capacity_env_steps or use fewer cars"
            )
        return cars


def _describe(array: np.ndarray) -> str:
    return f"{list(array.shape)} {array.dtype}"


def _pack_rng(rng: np.random.Generator) -> np.ndarray:
    """Packs a PCG64 generator into `[6]` uint64: two 128-bit numbers, and half a spare draw."""
    state = rng.bit_generator.state
    words = []
    for number in (state["state"]["state"], state["state"]["inc"]):
        words += [number >> 64, number & _UINT64_MASK]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def _unpack_rng(words: np.ndarray) -> np.random.Generator:
    if words.shape != (6,) or words.dtype != np.uint64:
        raise CheckpointError(f"the saved replay's rng is {_describe(words)}, expected [6] uint64")
    state_high, state_low, inc_high, inc_low, has_uint32, uinteger = (int(word) for word in words)
    bit_generator = np.random.PCG64()
    bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state_high << 64 | state_low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bit_generator)
