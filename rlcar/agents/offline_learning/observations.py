"""Observations, normalised by the moments of the recorded data."""

from typing import Any

import jax.numpy as jnp

from rlcar.agents.normaliser import Moments, initial_moments, normalise
from rlcar.agents.q_learning.transitions import Transitions
from rlcar.types import Array, Spec


def standard_moments(spec: Spec) -> Moments:
    """Returns the moments that a learner has before it has seen those of the data."""
    return initial_moments((spec.observation_size,))


def with_moments(state: Any, mean: Array, variance: Array, count: Array) -> Any:
    """Returns a train state with the moments of recorded data; implements `Learner`'s function."""
    numbers = (jnp.asarray(number, jnp.float32) for number in (mean, variance, count))
    return state._replace(moments=Moments(*numbers))


def normalised(moments: Moments, transitions: Transitions) -> Transitions:
    """Returns transitions with normalised observations."""
    return transitions._replace(
        observation=normalise(moments, transitions.observation),
        next_observation=normalise(moments, transitions.next_observation),
    )
