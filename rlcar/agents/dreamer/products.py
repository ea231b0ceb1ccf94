"""Matrix products in float32 or in a lower precision, and their gradients."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

_PRODUCT_DTYPE: ContextVar[str] = ContextVar("product_dtype", default="float32")


@contextlib.contextmanager
def products_in(dtype: str) -> Iterator[None]:
    """Code that is traced inside this context multiplies matrices in `dtype`.

    Sums of products, norms, parameters and their gradients are float32, as in the mixed precision
    of Micikevicius et al. 2018; adjoints are rounded like the other factor of their product.
    XLA ignores `jax.default_matmul_precision` on a CPU, hence this module.
    """
    token = _PRODUCT_DTYPE.set(dtype)
    try:
        yield
    finally:
        _PRODUCT_DTYPE.reset(token)


def product_dtype() -> str:
    """Returns the format that `products_in` has set; float32 outside of it."""
    return _PRODUCT_DTYPE.get()


def product(equation: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns `einsum` of two float32 arrays in the precision of `products_in`, as float32.

    `...i,io->...o`, or by groups `gni,gio->gno`.
    """
    dtype = product_dtype()
    if dtype == "float32":
        return jnp.einsum(equation, x, weight)
    return jnp.asarray(_low_product(dtype, equation, x, weight))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _low_product(dtype: str, equation: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    return _low_forward(dtype, equation, x, weight)[0]


def _low_forward(
    dtype: str, equation: str, x: jax.Array, weight: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    low = _row_by_row(x.astype(dtype)), weight.astype(dtype)
    return _in_float32(equation, *low), low


def _low_backward(
    dtype: str, equation: str, low: tuple[jax.Array, jax.Array], adjoint: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Rounds the adjoint too: by default it and both of its products would stay in float32."""
    x, weight = low
    terms, out = equation.split("->")
    left, right = terms.split(",")
    adjoint = _row_by_row(adjoint.astype(dtype))
    return (
        _in_float32(f"{out},{right}->{left}", adjoint, weight),
        _weight_gradient(left == "gni", x, adjoint),
    )


_low_product.defvjp(_low_forward, _low_backward)


def _in_float32(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def _weight_gradient(is_grouped: bool, x: jax.Array, adjoint: jax.Array) -> jax.Array:
    """`[..., I]` and `[..., O]` to `[I, O]`, or `[G, N, I]` and `[G, N, O]` to `[G, I, O]`."""
    if not is_grouped:
        x, adjoint = (each.reshape(-1, each.shape[-1]) for each in (x, adjoint))

    def as_it_lies(x: jax.Array, adjoint: jax.Array) -> jax.Array:
        return _in_float32("...ni,...no->...io", x, adjoint)

    def turned(x: jax.Array, adjoint: jax.Array) -> jax.Array:
        if x.shape[-1] > adjoint.shape[-1]:  # transposing the narrower one costs less
            return jnp.swapaxes(_laid_out(turned(adjoint, x)), -1, -2)
        return _in_float32("...in,...no->...io", _laid_out(jnp.swapaxes(x, -1, -2)), adjoint)

    return jax.lax.platform_dependent(x, adjoint, cpu=turned, default=as_it_lies)


def _row_by_row(x: jax.Array) -> jax.Array:
    """Stores an operand in the layout that XLA's CPU backend needs to multiply in bfloat16."""
    if x.ndim < 3:
        return x
    return jax.lax.platform_dependent(x, cpu=_laid_out, default=lambda x: x)


def _laid_out(x: jax.Array) -> jax.Array:
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


@jax.custom_vjp
def known_product(x: jax.Array, weight: jax.Array, result: jax.Array) -> jax.Array:
    """Returns `result [N, O]`, the known product of `x [N, I]` and `weight [I, O]`.

    Only `weight` gets a gradient."""
    del x, weight
    return result


def _known_product_forward(
    x: jax.Array, weight: jax.Array, result: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return result, (x, weight)


def _known_product_backward(known: tuple[jax.Array, jax.Array], adjoint: jax.Array) -> tuple:
    x, weight = known
    _, pull = jax.vjp(partial(product, "ni,io->no", x), weight)
    return jnp.zeros_like(x), *pull(adjoint), jnp.zeros_like(adjoint)


known_product.defvjp(_known_product_forward, _known_product_backward)
