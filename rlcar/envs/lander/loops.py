"""A loop for NumPy and JAX."""

from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

import jax
import numpy as np

from rlcar.types import Array

Carry = TypeVar("Carry")


def repeat(
    xp: ModuleType, times: int, body: Callable[[Array, Carry], Carry], carry: Carry
) -> Carry:
    """Returns `carry`, a pytree of arrays, after `times` calls of `body(i, carry)`.

    With JAX it is a loop of the compiled program: unrolled, XLA would fuse the iterations, compute
    each of them again for every reader, and compile for several times as long.
    """
    if xp is not np:
        result: Carry = jax.lax.fori_loop(0, times, body, carry)
        return result
    for i in range(times):
        carry = body(i, carry)
    return carry
