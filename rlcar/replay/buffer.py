"""The replay buffer: stores blocks of trajectories and draws random windows of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlcar.config import ReplayConfig
from rlcar.errors import CheckpointError, NonFiniteError
from rlcar.replay.rings import Rings, Slots, fields_of
from rlcar.types import Batch, Metrics, Spec, Trajectory

_UINT64_MASK = (1 << 64) - 1
_ROWS_AT_ONCE = 1024  # slots that are restored at a time


def capacity_in_slots(config: ReplayConfig, block_length: int) -> int:
    """Returns the capacity of a replay buffer in slots: blocks of one car."""
    return config.capacity_env_steps // block_length


class Replay:
    """A ring buffer with one slot `[T, ...]` for each car of each block; T is `block_length`.

    A full buffer overwrites its oldest slots. Memory grows with the content up to the capacity.
    Windows are drawn uniformly over slots and start positions, by a random generator that is part
    of the state. The buffer is not thread-safe.
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
        """Makes an empty buffer.

        `slots` holds the data, by default in this process. `carry_size` is that of the policy.
        Raises ValueError if a window is longer than a block or a block exceeds the capacity.
        """
        self._capacity = capacity_in_slots(config, block_length)
        if config.batch_length > block_length:
            raise ValueError(
                f"replay.batch_length = {config.batch_length} exceeds training.block_length = "
                f"{block_length}, but windows are cut out of blocks: lower the former"
            )
        if self._capacity < 1:
            raise ValueError(
                f"replay.capacity_env_steps = {config.capacity_env_steps} is less than one block "
                f"of {block_length} steps: raise it"
            )
        self._batch_size = config.batch_size
        self._batch_length = config.batch_length
        self._block_length = block_length
        self._fields = fields_of(spec, carry_size)
        self._slots = slots or Rings(spec, block_length, self._capacity, carry_size)
        self._versions = np.zeros(0)  # mean weights version of each slot
        self._size = 0  # number of slots in use
        self._next = 0  # the slot that is written next
        self._slots_inserted = 0
        self._rng = np.random.Generator(np.random.PCG64(seed))

    @property
    def env_steps_stored(self) -> int:
        """Number of env steps in the buffer."""
        return self._size * self._block_length

    @property
    def slots_inserted(self) -> int:
        """Number of slots that were ever written: a mark for `state_since`."""
        return self._slots_inserted

    def insert(self, trajectory: Trajectory) -> None:
        """Stores a copy of a block `[T, N, ...]`, where N is at most the capacity in slots.

        Raises ValueError for a wrong shape or dtype and NonFiniteError for a NaN or an infinity. In
        both cases nothing is stored.
        """
        block = {name: np.asarray(getattr(trajectory, name)) for name in self._fields}
        cars = self._check_block(block)
        slots = (self._next + np.arange(cars)) % self._capacity
        self._write(slots, {name: np.swapaxes(array, 0, 1) for name, array in block.items()})
        self._next = int((self._next + cars) % self._capacity)
        self._size = min(self._capacity, self._size + cars)
        self._slots_inserted += cars

    def sample(self, updates: int) -> Batch:
        """Draws windows of L steps, leaves `[updates, B, L, ...]`.

        The arrays lie where the slots lie and belong to the caller. Raises ValueError if the buffer
        is empty.
        """
        if not self._size:
            raise ValueError("cannot sample from an empty replay buffer: insert a trajectory first")
        shape = (updates, self._batch_size)
        slots = self._rng.integers(self._size, size=shape)
        starts = self._rng.integers(self._block_length - self._batch_length + 1, size=shape)
        return Batch(**self._slots.windows(slots, starts, self._batch_length))

    def all_blocks(self) -> Batch:
        """Returns the whole content, slot by slot, leaves `[1, slots, T, ...]`."""
        rows = self._slots.read(np.arange(self._size))
        names = [name for name in Batch._fields if name in rows]
        return Batch(**{name: np.asarray(rows[name])[None] for name in names})

    def keep_newest(self, env_steps: int) -> None:
        """Drops all but the newest slots with at most so many env steps.

        What is kept counts as driven by weights of version 0: those of another training.
        """
        number = min(env_steps // self._block_length, self._size)
        rows = self._slots.read(self._newest(number, self._next))
        rows = {name: np.asarray(rows[name][:]) for name in self._fields}
        rows["weights_version"] = np.zeros_like(rows["weights_version"])
        if number:
            self._write(np.arange(number), rows)
        self._size = self._slots_inserted = number
        self._next = number % self._capacity

    def metrics(self, current_version: int) -> Metrics:
        """Returns the size and the mean age of the stored steps, in updates of the policy."""
        age = 0.0
        if self._size:
            age = current_version - float(self._versions[: self._size].mean())
        return {
            "replay/size_env_steps": float(self.env_steps_stored),
            "replay/age_updates": age,
        }

    def check_valid(self) -> tuple[bool, str]:
        """Checks all invariants; returns (True, "") or (False, the first violation)."""
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
        """Returns the whole state, random generator included, as named arrays.

        The arrays are copies. If the slots lie in other processes or on a device, they are `Rows`,
        which must be read before the next insert.
        """
        return {**self._slots.read(np.arange(self._size)), **self._position()}

    def state_since(self, mark: int) -> dict[str, Any]:
        """Returns the part of `state` written since `slots_inserted` was `mark`, oldest first.

        The whole state of that moment together with this part gives the present state.
        """
        slots = self._newest(min(self._slots_inserted - mark, self._size), self._next)
        return {**self._slots.read(slots), **self._position()}

    def restore(self, state: Mapping[str, Any], since: Mapping[str, Any] | None = None) -> None:
        """Restores `state`, and then the slots of `since` (from `state_since`) if it is given.

        The arrays are copied. Raises CheckpointError if the layout differs; then nothing changes.
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
        """Stores rows part by part, because memory may not hold all of them twice."""
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
        """Returns the size and the next slot of a state; raises CheckpointError if it does not fit.

        `before` are the size and the next slot of the state that this one continues.
        """
        missing = {*self._fields, "position", "rng"} - set(state)
        if missing:
            raise CheckpointError(
                f"the saved replay buffer has no {', '.join(sorted(missing))}: resume from another "
                "checkpoint"
            )
        capacity, size, next_slot = (int(number) for number in state["position"])
        if capacity != self._capacity:
            raise CheckpointError(
                f"the saved replay buffer has {capacity} slots of {self._block_length} steps, but "
                f"this run has {self._capacity}: resume with the same replay.capacity_env_steps"
            )
        rows = size if before is None else len(state["reward"])
        for name, (shape, dtype) in self._fields.items():
            expected = (rows, self._block_length, *shape)
            if state[name].shape != expected or state[name].dtype != dtype:
                raise CheckpointError(
                    f"{name} of the saved replay buffer is {_describe(state[name])}, "
                    f"expected {list(expected)} {dtype}: resume with the same config"
                )
        if before is not None:
            follows = (min(capacity, before[0] + rows), (before[1] + rows) % capacity)
            if rows < capacity and follows != (size, next_slot):
                raise CheckpointError(
                    f"the newest {rows} slots of the saved replay buffer do not follow its other "
                    f"{before[0]} slots: resume from another checkpoint"
                )
        return size, next_slot

    def _check_block(self, block: Mapping[str, np.ndarray]) -> int:
        """Returns the number of cars; raises an error for the first array that is invalid."""
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
                f"a trajectory of {cars} cars does not fit into the replay buffer, which has "
                f"{self._capacity} slots: raise replay.capacity_env_steps or use fewer cars"
            )
        return cars


def _describe(array: np.ndarray) -> str:
    return f"{list(array.shape)} {array.dtype}"


def _pack_rng(rng: np.random.Generator) -> np.ndarray:
    """Packs a PCG64 generator into `[6]` uint64: two 128-bit numbers and a buffered 32-bit draw."""
    state = rng.bit_generator.state
    words = []
    for number in (state["state"]["state"], state["state"]["inc"]):
        words += [number >> 64, number & _UINT64_MASK]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def _unpack_rng(words: np.ndarray) -> np.random.Generator:
    if words.shape != (6,) or words.dtype != np.uint64:
        raise CheckpointError(
            f"rng of the saved replay buffer is {_describe(words)}, expected [6] uint64: resume "
            "from another checkpoint"
        )
    state_high, state_low, inc_high, inc_low, has_uint32, uinteger = (int(word) for word in words)
    bit_generator = np.random.PCG64()
    bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state_high << 64 | state_low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bit_generator)
