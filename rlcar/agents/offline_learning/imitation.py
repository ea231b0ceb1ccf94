"""How far a policy is from recorded actions."""

import jax
import jax.numpy as jnp


def imitation_errors(output: jax.Array, action: jax.Array, is_discrete: bool) -> jax.Array:
    """Returns the error `[M]` of an actor's output `[M, A]` at recorded actions `[M, A]`.

    It is the squared distance of the tanh of the output. For one-hot actions, whose logits are the
    output, it is the cross-entropy.
    """
    if is_discrete:
        return -jnp.sum(action * jax.nn.log_softmax(output), axis=-1)
    return jnp.sum(jnp.square(jnp.tanh(output) - action), axis=-1)
