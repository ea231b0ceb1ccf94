"""The few operations that NumPy and JAX spell differently."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from rlcar.devices.selection import default_platform

# For `jax.jit` of a race: integers do not care how wide the registers are, and XLA uses half of an
# AVX-512 one unless told. A sixth faster there, the same elsewhere.
COMPILER_OPTIONS = {"xla_cpu_prefer_vector_width": 512}


class Backend(NamedTuple):
    """One array library; the simulator's only source runs over it.

    `take(table, index)` gathers from a flat table, the index is promised to be in bounds;
    `while_loop(condition, body, carry)` is JAX's; `integer` is int32 but in the overflow test;
    `gates_at_once` is a matter of speed only: NumPy pays for calls, XLA for work.
    """

    xp: Any
    take: Callable[[Any, Any], Any]
    while_loop: Callable[[Callable[[Any], Any], Callable[[Any], Any], Any], Any]
    integer: Any = np.int32
    gates_at_once: int = 1


def make_backend(xp: Any) -> Backend:
    """Returns the backend of `numpy` or `jax.numpy`."""
    if xp is np:
        return Backend(np, lambda table, index: table[index], _while_loop, gates_at_once=8)
    return Backend(xp, _take_jax, jax.lax.while_loop)


def one_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes XLA compile a function's calls to one CPU kernel each; elsewhere returns it unchanged.

    XLA would cut the race's step into some 50 kernels that a thread pool starts one by one: five
    times its own work for one car, a third for 1,024. These are the attributes by which XLA marks
    small loops for itself (openxla/xla, `small_while_loop_hoisting_pass.cc`): a speed matter only.
    """
    if default_platform() != "cpu":
        return function
    compiled = jax.jit(function)

    def call(*arguments: Any) -> Any:
        with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
            return compiled(*arguments)

    return call


def _take_jax(table: Any, index: Any) -> Any:
    return table.at[index].get(mode="promise_in_bounds")


def _while_loop(condition: Callable[[Any], Any], body: Callable[[Any], Any], carry: Any) -> Any:
    while condition(carry):
        carry = body(carry)
    return carry
