"""A replay whose steps lie beside the learner: batches are cut there, only their places travel."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlcar.devices.selection import to_learner
from rlcar.errors import ConfigError
from rlcar.replay.rings import fields_of, row_bytes
from rlcar.storage.arrays import Rows
from rlcar.types import Batch, Spec

_ROWS = 256  # that the host reads at once


class DeviceRings:
    """`Slots` in the memory of the learner's device, all of it held from the start.

    An accelerator beside the CPU is that device. What it gives is what `Rings` gives, bit for bit.
    """

    def __init__(self, spec: Spec, block_length: int, capacity: int) -> None:
        """Raises ConfigError where the device has not so much memory."""
        fields = fields_of(spec)
        self._batch_fields = [name for name in Batch._fields if name in fields]
        try:
            self._rings = {
                name: to_learner(jnp.zeros((capacity, block_length, *shape), dtype))
                for name, (shape, dtype) in fields.items()
            }
            jax.block_until_ready(self._rings)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            needed_gb = capacity * row_bytes(spec, block_length) / 1e9
            raise ConfigError(
                f"replay.on_device: the learner's device has not the {needed_gb:.3g} GB that "
                f"{capacity * block_length} env steps take: lower replay.capacity_env_steps, or "
                "leave the replay on the host with replay.on_device=false"
            ) from error

    def write(self, slots: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
        """Stores rows `[n, T, …]` under the numbers `slots` `[n]`."""
        if len(slots):
            self._rings = _written(self._rings, slots, {name: rows[name] for name in self._rings})

    def windows(self, slots: np.ndarray, starts: np.ndarray, length: int) -> dict[str, Any]:
        """Cuts windows, leaves `[*slots.shape, length, …]`, on the device; what a batch has."""
        return _cut({name: self._rings[name] for name in self._batch_fields}, slots, starts, length)

    def read(self, slots: np.ndarray) -> dict[str, Rows]:
        """Returns whole slots a field, to be read before the next is written."""
        return {name: self._rows(name, slots) for name in self._rings}

    def _rows(self, name: str, slots: np.ndarray) -> Rows:
        def read(part: slice) -> np.ndarray:
            asked = slots[part]
            parts = np.split(asked, range(_ROWS, len(asked), _ROWS))
            return np.concatenate([_read(self._rings[name], one) for one in parts])

        ring = self._rings[name]
        return Rows((len(slots), *ring.shape[1:]), np.dtype(ring.dtype), read, _ROWS)


def _read(ring: jax.Array, slots: np.ndarray) -> np.ndarray:
    """Copies slots to the host; always as many, so that one program does."""
    return np.asarray(_taken(ring, np.resize(slots, _ROWS)))[: len(slots)]


@jax.jit(donate_argnums=0)
def _written(rings: dict, slots: jax.Array, rows: dict) -> dict:
    return {name: ring.at[slots].set(rows[name]) for name, ring in rings.items()}


@jax.jit(static_argnums=3)
def _cut(rings: dict, slots: jax.Array, starts: jax.Array, length: int) -> dict:
    ahead = jnp.expand_dims(jnp.arange(length), range(starts.ndim))
    steps = starts[..., None] + ahead
    return {name: ring[slots[..., None], steps] for name, ring in rings.items()}


@jax.jit
def _taken(ring: jax.Array, slots: jax.Array) -> jax.Array:
    return ring[slots]
