"""One train step over several devices of a host: each takes its part of the batch."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlcar.errors import ConfigError

_AXIS = "batch"
_EVERYWHERE = PartitionSpec()


def over_devices(update: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Returns `update` with batches `[updates, B, ...]` split along B, the state on every device.

    What `update` does not split itself by `on_each_device`, XLA's partitioner does. Either way
    draws, statistics over the batch and hence the update are those of one device, but for the
    order of float sums. Raises ConfigError when there are not so many devices, or NaNs are sought.
    """
    if number == 1:
        return update
    if jax.config.jax_debug_nans:  # type: ignore[attr-defined]
        # JAX looks for the operation outside the program, where nothing is split.
        raise ConfigError(
            f"training.learner_devices = {number}: --debug-nans finds an operation on one device; "
            f"set it to 1 for that"
        )
    devices = jax.local_devices()
    if len(devices) < number:
        raise ConfigError(
            f"training.learner_devices = {number}: this process sees {len(devices)} "
            f"({devices[0].platform}); give it more, or set it lower"
        )
    mesh = Mesh(devices[:number], (_AXIS,))
    everywhere = NamedSharding(mesh, _EVERYWHERE)
    split = NamedSharding(mesh, PartitionSpec(None, _AXIS))

    @wraps(update)
    def split_update(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `on_each_device`
            return update(*arguments)

    return jax.jit(
        split_update,
        in_shardings=(everywhere, split),
        out_shardings=everywhere,
        donate_argnums=0,
    )


def on_each_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(batch [B, ...], *rest)` by every device for its rows of the batch.

    What it returns has to be the same on all: `mean_over_devices` and `of_all_devices` make it so.
    XLA's partitioner alone splits no rows that are flattened after their time, such as the starts
    of dreams. On one device it is `function`.
    """

    def run(batch: Any, *rest: Any) -> Any:
        if _AXIS not in jax.sharding.get_abstract_mesh().axis_names:
            return function(batch, *rest)
        return jax.shard_map(
            function,
            in_specs=(PartitionSpec(_AXIS), *(_EVERYWHERE for _ in rest)),
            out_specs=_EVERYWHERE,
            check_vma=False,
        )(batch, *rest)

    return run


def _is_one_part() -> bool:
    return _AXIS in jax.sharding.get_abstract_mesh().manual_axes


def mean_over_devices(tree: Any) -> Any:
    """The mean of what each device found for its rows."""
    if not _is_one_part():
        return tree
    flat, back = ravel_pytree(tree)  # one exchange in place of one for each tensor
    return back(jax.lax.pmean(flat, _AXIS))


def of_all_devices(x: jax.Array, axis: int) -> jax.Array:
    """The rows of all devices along `axis`, one device's after the other's: for statistics."""
    return jax.lax.all_gather(x, _AXIS, axis=axis, tiled=True) if _is_one_part() else x


def drawn(draw: Callable[[tuple[int, ...]], jax.Array], rows: tuple[int, ...]) -> jax.Array:
    """`draw(rows)` for the rows `[..., B]` of this device: its part of what one would draw."""
    if not _is_one_part():
        return draw(rows)
    *outer, size = rows
    everything = draw((*outer, size * jax.lax.axis_size(_AXIS)))
    first = size * jax.lax.axis_index(_AXIS)
    return jax.lax.dynamic_slice_in_dim(everything, first, size, axis=len(outer))
