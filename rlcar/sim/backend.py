"""The few operations whose interface differs between NumPy and JAX."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from rlcar.devices.selection import default_platform
from rlcar.types import Array

# For `jax.jit` of a race. By default XLA uses only half of an AVX-512 register. The full width
# makes a step faster by a sixth on such a processor; integer results do not depend on it.
COMPILER_OPTIONS = {"xla_cpu_prefer_vector_width": 512}


class Backend(NamedTuple):
    """An array library, as the simulator uses it: one source runs with NumPy and with JAX.

    `take(table, index)` gathers from a flat table; the caller guarantees indices within bounds.
    `while_loop(condition, body, carry)` is that of `jax.lax`.
    """

    xp: Any  # the module numpy or jax.numpy, whose functions no type checker can compare
    take: Callable[[Array, Array], Array]
    while_loop: Callable[[Callable[[Any], Array], Callable[[Any], Any], Any], Any]
    integer: type[np.signedinteger[Any]] = np.int32  # int64 only in the test for overflows
    # Gates that the sensors examine in one iteration. It affects speed alone: NumPy's cost is the
    # number of calls, XLA's the number of operations.
    gates_at_once: int = 1


def make_backend(xp: ModuleType) -> Backend:
    """Returns the backend of a library, `numpy` or `jax.numpy`."""
    if xp is np:
        return Backend(np, lambda table, index: table[index], _while_loop, gates_at_once=8)
    return Backend(xp, _take_jax, jax.lax.while_loop)


def one_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes XLA compile each call of a function to one CPU kernel; a no-op on other platforms.

    Otherwise XLA splits the step of a race into about 50 kernels, which a thread pool starts one by
    one. This overhead is five times the work of one car and a third of the work of 1,024 cars. The
    attributes are those with which XLA marks small loops (openxla/xla,
    `small_while_loop_hoisting_pass.cc`). They do not change results.
    """
    if default_platform() != "cpu":
        return function
    compiled = jax.jit(function)

    def call(*arguments: Any) -> Any:
        with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
            return compiled(*arguments)

    return call


def _take_jax(table: Array, index: Array) -> Array:
    return table.at[index].get(mode="promise_in_bounds")


def _while_loop(condition: Callable[[Any], Array], body: Callable[[Any], Any], carry: Any) -> Any:
    while condition(carry):
        carry = body(carry)
    return carry
