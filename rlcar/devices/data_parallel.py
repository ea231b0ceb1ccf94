"""Data parallelism: several devices of a host share the batch of a train step."""

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
    """Returns `update` with batches `[updates, B, ...]` split along B over `number` devices.

    The state is replicated on every device. `update` may split a part of its work itself with
    `on_each_device`; XLA's partitioner splits the rest. In both cases random draws and statistics
    over the batch, and therefore the update, are those of one device up to the order of float sums.
    Raises ConfigError if there are fewer devices or if JAX's search for NaNs is on.
    """
    if number == 1:
        return update
    if jax.config.jax_debug_nans:  # type: ignore[attr-defined]
        # JAX searches for the operation by running the program without its partitioning.
        raise ConfigError(
            f"training.learner_devices = {number}: --debug-nans needs a single device; set it to 1"
        )
    devices = jax.local_devices()
    if len(devices) < number:
        raise ConfigError(
            f"training.learner_devices = {number}: this process sees {len(devices)} devices "
            f"({devices[0].platform}); make more devices visible or lower the setting"
        )
    mesh = Mesh(devices[:number], (_AXIS,))
    everywhere = NamedSharding(mesh, _EVERYWHERE)
    split = NamedSharding(mesh, PartitionSpec(None, _AXIS))

    @wraps(update)
    def split_update(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # read by `on_each_device`
            return update(*arguments)

    return jax.jit(
        split_update,
        in_shardings=(everywhere, split),
        out_shardings=everywhere,
        donate_argnums=0,
    )


def on_each_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function(batch [B, ...], *rest)`, run by every device on its rows of the batch.

    The result must be the same on all devices; `mean_over_devices` and `gather_over_devices` ensure
    that. XLA's partitioner cannot split rows that are flattened together with their time axis, such
    as the start states of imagination. On one device the result is `function` itself.
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
    """Returns whether the caller runs inside `on_each_device` on several devices."""
    return _AXIS in jax.sharding.get_abstract_mesh().manual_axes


def mean_over_devices(tree: Any) -> Any:
    """Returns the mean over devices of a tree that each computed for its rows."""
    if not _is_one_part():
        return tree
    flat, back = ravel_pytree(tree)  # a single exchange for all arrays
    return back(jax.lax.pmean(flat, _AXIS))


def gather_over_devices(x: jax.Array, axis: int) -> jax.Array:
    """Returns the rows of all devices along `axis`, in order, for statistics over the batch."""
    return jax.lax.all_gather(x, _AXIS, axis=axis, tiled=True) if _is_one_part() else x


def draw_for_rows(draw: Callable[[tuple[int, ...]], jax.Array], rows: tuple[int, ...]) -> jax.Array:
    """Returns this device's rows of `draw([..., B])`, where B counts the rows of all devices."""
    if not _is_one_part():
        return draw(rows)
    *outer, size = rows
    everything = draw((*outer, size * jax.lax.axis_size(_AXIS)))
    first = size * jax.lax.axis_index(_AXIS)
    return jax.lax.dynamic_slice_in_dim(everything, first, size, axis=len(outer))
