"""Small pseudo-random batches, and compilation that is quick rather than its result fast."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlcar.types import Batch, Learner, Spec

SPEC = Spec(observation_size=6, action_size=2)
DISCRETE = Spec(observation_size=6, action_size=3, is_discrete=True)
# These learn at once, so that a wrong optimiser step shows, whatever the presets are tuned to.
LEARNS_AT_ONCE = (
    "dreamer.optimizer.warmup_updates=0",
    "dreamer.optimizer.learning_rate=1e-3",
    "dreamer.world_model.observation_scale=1.0",
    "dreamer.world_model.reconstruction_scale=1.0",
)


def quick_jit(function: Callable, use_fusion_emitters: bool = False, **settings: Any) -> Callable:
    """Compiles with LLVM's optimisations off, which is three times as quick.

    XLA's fusion emitters, which users' programs are compiled with, take half of what is left. Tests
    that compare two programs within a tight tolerance need them: they round alike in both.
    """
    options: dict[str, Any] = {
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": use_fusion_emitters,
    }
    return jax.jit(function, compiler_options=options, **settings)


def quick_learner(learner: Learner, use_fusion_emitters: bool = False) -> Learner:
    return learner._replace(
        init=quick_jit(learner.init, use_fusion_emitters),
        update=quick_jit(learner.update, use_fusion_emitters, donate_argnums=0),
    )


def random_batch(*shape: int, spec: Spec = SPEC, seed: int = 0, carry_size: int = 0) -> Batch:
    """A batch `shape = [..., B, T]` of noise, with an episode's end here and there."""
    rng = np.random.default_rng(seed)
    if spec.is_discrete:
        action = np.eye(spec.action_size)[rng.integers(spec.action_size, size=shape)]
    else:
        action = rng.uniform(-1.0, 1.0, (*shape, spec.action_size))
    is_last = rng.random(shape) < 0.1
    is_first = np.roll(is_last, 1, axis=-1)
    is_first[..., 0] = False
    carry = rng.uniform(-1.0, 1.0, (*shape, carry_size)).astype(np.float32)
    if carry_size:  # PPO's last column: about the log-probability that it begins with
        carry[..., -1] = 0.3 * carry[..., -1] - 2.2
    return Batch(
        observation=rng.uniform(size=(*shape, spec.observation_size)).astype(np.float32),
        previous_action=action.astype(np.float32),
        reward=np.where(is_first, 0.0, rng.normal(size=shape)).astype(np.float32),
        is_first=is_first,
        is_last=is_last,
        is_terminal=is_last & (rng.random(shape) < 0.5),
        carry=carry if carry_size else None,
    )


def one_episode(size: int, length: int, seed: int = 0) -> Batch:
    """A batch `[B, T]` in which no episode begins or ends."""
    batch = random_batch(size, length, seed=seed)
    never = np.zeros((size, length), bool)
    return batch._replace(is_first=never, is_last=never, is_terminal=never)


def assert_trees_close(actual: Any, expected: Any, rtol: float, atol: float = 0.0) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected
    )


def largest(tree: Any) -> float:
    """The largest magnitude in a tree; NaN when there is one."""
    return float(np.max([np.max(np.abs(leaf)) for leaf in jax.tree.leaves(tree)]))
