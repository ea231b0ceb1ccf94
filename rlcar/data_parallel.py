"""One train step over several devices of a host: each takes its part of the batch."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlcar.errors import ConfigError


def over_devices(update: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Returns `update` with batches `[updates, B, ...]` split along B, the state on every device.

    XLA's partitioner splits the program and sums the gradients, so that draws, statistics over the
    batch and hence the update are those of one device, but for the order of float sums. Raises
    ConfigError when there are not so many devices.
    """
    if number == 1:
        return update
    devices = jax.local_devices()
    if len(devices) < number:
        raise ConfigError(
            f"training.learner_devices = {number}: this process sees {len(devices)} "
            f"({devices[0].platform}); give it more, or set it lower"
        )
    mesh = Mesh(devices[:number], ("batch",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(None, "batch"))
    return jax.jit(
        update,
        in_shardings=(everywhere, split),
        out_shardings=everywhere,
        donate_argnums=0,
    )
