"""Memory of past driving: blocks of trajectories in, random windows out."""

from collections.abc import Mapping

import numpy as np

from rlcar.config import ReplayConfig
from rlcar.errors import CheckpointError, NonFiniteError
from rlcar.types import Batch, Metrics, Spec, Trajectory

_UINT64_MASK = (1 << 64) - 1


class Replay:
    """Rings of sequences, one slot `[T]` for each car of each block; the oldest is overwritten.

    T is `block_length`. Memory grows with what is stored, by doubling, up to the capacity. Windows
    are drawn with equal chance over slots and start positions, from a generator that is part of
    the state. Not for use by two threads at once.
    """

    def __init__(self, config: ReplayConfig, spec: Spec, block_length: int, seed: int) -> None:
        """Raises ValueError when no window fits a block, or no block the capacity."""
        self._capacity = config.capacity_env_steps // block_length  # slots
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
        self._fields: dict[str, tuple[tuple[int, ...], np.dtype]] = {
            "observation": ((spec.observation_size,), np.dtype(np.float32)),
            "previous_action": ((spec.action_size,), np.dtype(np.float32)),
            "reward": ((), np.dtype(np.float32)),
            "is_first": ((), np.dtype(np.bool_)),
            "is_last": ((), np.dtype(np.bool_)),
            "is_terminal": ((), np.dtype(np.bool_)),
            "weights_version": ((), np.dtype(np.int32)),
        }
        if spec.image_shape is not None:
            self._fields["image"] = (spec.image_shape, np.dtype(np.uint8))
        self._batch_fields = [name for name in Batch._fields if name in self._fields]
        self._rings = self._allocate(0)
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
        self._grow(min(self._capacity, self._next + cars))
        slots = (self._next + np.arange(cars)) % self._capacity
        for name, array in block.items():
            self._rings[name][slots] = np.swapaxes(array, 0, 1)
        self._next = int((self._next + cars) % self._capacity)
        self._size = min(self._capacity, self._size + cars)
        self._slots_inserted += cars

    def sample(self, updates: int) -> Batch:
        """Draws windows, leaves `[updates, B, L, …]`; the arrays belong to the caller.

        Raises ValueError when nothing is stored.
        """
        if not self._size:
            raise ValueError("cannot sample from an empty replay: insert a trajectory first")
        shape = (updates, self._batch_size)
        slots = self._rng.integers(self._size, size=shape)
        starts = self._rng.integers(self._block_length - self._batch_length + 1, size=shape)
        first = slots * self._block_length + starts
        steps = first[..., None] + np.arange(self._batch_length)  # [updates, B, L]
        return Batch(
            **{name: self._by_step(name).take(steps, axis=0) for name in self._batch_fields}
        )

    def everything(self) -> Batch:
        """Returns all that is stored, whole blocks in order, leaves `[1, slots, T, …]`."""
        rings = {name: self._rings[name][None, : self._size].copy() for name in self._batch_fields}
        return Batch(**rings)

    def metrics(self, current_version: int) -> Metrics:
        """Returns the size, and how many updates ago the stored steps were driven, on average."""
        age = 0.0
        if self._size:
            versions = self._rings["weights_version"][: self._size]
            age = current_version - float(versions.mean(dtype=np.float64))
        return {
            "replay/size_env_steps": float(self.env_steps_stored),
            "replay/age_updates": age,
        }

    def check_valid(self) -> tuple[bool, str]:
        """Returns whether all invariants hold, and which does not, by slot and step."""
        allocated = len(self._rings["reward"])
        if not (0 <= self._size <= allocated <= self._capacity and self._next < self._capacity):
            return False, f"counts: {self._size} of {allocated} slots, next {self._next}"
        if self._size < self._capacity and self._next != self._size:
            return False, f"counts: next slot is {self._next} after {self._size}"
        rings = {name: ring[: self._size] for name, ring in self._rings.items()}
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

    def state(self) -> dict[str, np.ndarray]:
        """Returns copies of all there is, the random generator included."""
        return {
            **{name: ring[: self._size].copy() for name, ring in self._rings.items()},
            **self._position(),
        }

    def state_since(self, mark: int) -> dict[str, np.ndarray]:
        """Returns copies of the slots written since `slots_inserted` was `mark`, oldest first.

        With the whole state of that moment it is the whole state of now.
        """
        slots = self._newest(min(self._slots_inserted - mark, self._size), self._next)
        rings = {name: ring[slots] for name, ring in self._rings.items()}
        return {**rings, **self._position()}

    def restore(
        self, state: Mapping[str, np.ndarray], since: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Goes on exactly where `state`, or `state_since` after it, was taken; copies the arrays.

        Raises CheckpointError, and changes nothing, when one is of another layout.
        """
        size, next_slot = self._check_state(state, None)
        newest = state if since is None else since
        rng = _unpack_rng(newest["rng"])
        final_size, final_next = size, next_slot
        if since is not None:
            final_size, final_next = self._check_state(since, (size, next_slot))
        self._rings = self._allocate(0)
        self._size = 0
        self._grow(final_size)
        for name in self._fields:
            self._rings[name][:size] = state[name]
            if since is not None:
                self._rings[name][self._newest(len(since[name]), final_next)] = since[name]
        self._size, self._next, self._rng = final_size, final_next, rng

    def _position(self) -> dict[str, np.ndarray]:
        position = [self._capacity, self._size, self._next]
        return {"position": np.array(position, np.int64), "rng": _pack_rng(self._rng)}

    def _newest(self, number: int, next_slot: int) -> np.ndarray:
        return (next_slot - number + np.arange(number)) % self._capacity

    def _check_state(
        self, state: Mapping[str, np.ndarray], before: tuple[int, int] | None
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

    def _by_step(self, name: str) -> np.ndarray:
        """Views a ring as `[slots x T, …]`, so that one index finds a step."""
        ring = self._rings[name]
        return ring.reshape(ring.shape[0] * ring.shape[1], *self._fields[name][0])

    def _allocate(self, slots: int) -> dict[str, np.ndarray]:
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
            ring[: self._size] = self._rings[name][: self._size]
        self._rings = rings

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
