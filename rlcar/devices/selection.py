"""Chooses the device of each computation in a process with an accelerator beside its CPU."""

import contextlib
from typing import TypeVar

import jax

_Tree = TypeVar("_Tree")


def everything_on_cpu() -> contextlib.AbstractContextManager[object]:
    """Returns a context in which JAX computes on the CPU unless an array is placed elsewhere.

    Loops that both drive and learn use it. Driving few cars takes many small operations, each of
    which would be a launch of its own on an accelerator.
    """
    if default_platform() == "cpu":
        return contextlib.nullcontext()
    # With `JAX_PLATFORMS=cuda` JAX has no CPU device: everything then stays on the accelerator.
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def default_platform() -> str:
    """Returns the platform of arrays that are not placed explicitly: cpu, gpu or tpu."""
    device = getattr(jax.config, "jax_default_device")  # noqa: B009  unknown to type checkers
    return jax.default_backend() if device is None else str(getattr(device, "platform", device))


def to_learner(state: _Tree) -> _Tree:
    """Moves the learner's state, and so its train steps, to the accelerator if there is one."""
    accelerator = jax.local_devices()[0]
    return state if accelerator.platform == "cpu" else jax.device_put(state, accelerator)


def disable_async_dispatch() -> None:
    """Makes JAX run CPU computations in the calling thread, for the rest of the process.

    Call it where a caller waits for each result, as with one step of a few cars: handing the work
    to another thread would take as long as the step of one car. It has no effect once JAX has
    computed something.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
