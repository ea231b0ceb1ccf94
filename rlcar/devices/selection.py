"""Which device does what, in a process that has an accelerator beside its CPU."""

import contextlib
from typing import Any

import jax

from rlcar.devices.compile_cache import write_entries_whole

write_entries_whole()  # here, because all that compiles imports this: `sim.backend`, `trainer`


def everything_on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Inside, JAX runs on the CPU what is not placed elsewhere; for loops that drive and learn.

    Cars are few and their steps small: on an accelerator each step would be a hundred launches.
    """
    if default_platform() == "cpu":
        return contextlib.nullcontext()
    # `JAX_PLATFORMS=cuda` hides the CPU: then all is where the user wants it.
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()


def default_platform() -> str:
    """Where JAX runs what is not placed elsewhere: cpu, gpu, …"""
    settings: Any = jax.config  # whose attributes no type checker sees
    device = settings.jax_default_device
    return jax.default_backend() if device is None else str(getattr(device, "platform", device))


def to_learner(state: Any) -> Any:
    """Places the state of a learner, and with it its train steps, on the accelerator if any."""
    accelerator = jax.local_devices()[0]
    return state if accelerator.platform == "cpu" else jax.device_put(state, accelerator)
