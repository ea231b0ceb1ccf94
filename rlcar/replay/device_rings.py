"""Replay slots in the memory of the learner's device, where batches are cut as well."""

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

_ROWS = 256  # slots that the host reads at a time


class DeviceRings:
    """`Slots` on the learner's device, which is the accelerator if there is one.

    All memory is allocated at the start. The data is bit for bit that of `Rings`.
    """

    def __init__(self, spec: Spec, block_length: int, capacity: int) -> None:
        """Allocates the slots; raises ConfigError if the device has too little memory."""
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
                f"replay.on_device: the learner's device cannot allocate the {needed_gb:.3g} GB of "
                f"{capacity * block_length} env steps: lower replay.capacity_env_steps, or keep "
                "the replay buffer on the host with replay.on_device=false"
            ) from error

    def write(self, slots: np.ndarray, rows: Mapping[str, np.ndarray]) -> None:
        """Stores rows `[n, T, ...]` in the slots with the numbers `slots` `[n]`."""
        if len(slots):
            self._rings = _written(self._rings, slots, {name: rows[name] for name in self._rings})

    def windows(self, slots: np.ndarray, starts: np.ndarray, length: int) -> dict[str, Any]:
        """Cuts windows `[*slots.shape, length, ...]` of each field of a batch, on the device."""
        return _cut({name: self._rings[name] for name in self._batch_fields}, slots, starts, length)

    def read(self, slots: np.ndarray) -> dict[str, Rows]:
        """Returns whole slots by field; read them before the next write."""
        return {name: self._rows(name, slots) for name in self._rings}

    def _rows(self, name: str, slots: np.ndarray) -> Rows:
        def read(part: slice) -> np.ndarray:
            wanted = slots[part]
            parts = np.split(wanted, range(_ROWS, len(wanted), _ROWS))
            return np.concatenate([_read(self._rings[name], few) for few in parts])

        ring = self._rings[name]
        return Rows((len(slots), *ring.shape[1:]), np.dtype(ring.dtype), read, _ROWS)


def _read(ring: jax.Array, slots: np.ndarray) -> np.ndarray:
    """Copies slots to the host, always `_ROWS` of them, so that JAX compiles one program."""
    return np.asarray(_taken(ring, np.resize(slots, _ROWS)))[: len(slots)]


@jax.jit(donate_argnums=0)
def _written(rings: dict, slots: jax.Array, rows: dict) -> dict:
    return {name: ring.at[slots].set(rows[name]) for name, ring in rings.items()}


@jax.jit(static_argnums=3)
def _cut(rings: dict, slots: jax.Array, starts: jax.Array, length: int) -> dict:
    offsets = jnp.expand_dims(jnp.arange(length), range(starts.ndim))
    steps = starts[..., None] + offsets
    return {name: ring[slots[..., None], steps] for name, ring in rings.items()}


@jax.jit
def _taken(ring: jax.Array, slots: jax.Array) -> jax.Array:
    return ring[slots]
