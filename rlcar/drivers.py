"""Hand-written drivers: what a policy must beat before it has learnt anything worth having."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from rlcar.types import Array, Policy, TimeStep

RAY_ANGLES_DEG = np.array([-45.0, -22.5, 0.0, 22.5, 45.0], np.float32)  # positive is to the left
_STEERING_DEG_PER_STEP = 5.0  # what steering 1 turns in one step

# Tuned on the validation tracks, all of which these and many other values lap.
_LEFT_MINUS_RIGHT_GAIN = 4.0
_SHARPNESS = 16.0  # the longest ray nearly alone; the plain argmax would jump between rays
_CAUTION = 0.5  # share of the angle to turn in one step; 1 swerves


def _no_carry(number_of_cars: int) -> None:
    return None


def _full_throttle(
    params: Any, carry: Any, time_step: TimeStep, key: Any, explore: bool
) -> tuple[Any, Array]:
    """Steers by `gain (left rays - right rays)`, throttle always 1."""
    ray = time_step.observation[:, :5]
    steering = _LEFT_MINUS_RIGHT_GAIN * (ray[:, 3] + ray[:, 4] - ray[:, 0] - ray[:, 1])
    return carry, _action(steering)


def _longest_ray(
    params: Any, carry: Any, time_step: TimeStep, key: Any, explore: bool
) -> tuple[Any, Array]:
    """Steers to the mean ray angle, weighted by a high power of each length."""
    weight = time_step.observation[:, :5] ** _SHARPNESS + 1e-6
    angle_deg = (weight * RAY_ANGLES_DEG[None]).sum(axis=1) / weight.sum(axis=1)
    return carry, _action(_CAUTION * angle_deg / _STEERING_DEG_PER_STEP)


def _action(steering: Array) -> Array:
    steering = jnp.clip(steering, -1.0, 1.0)
    return jnp.stack([steering, jnp.ones_like(steering)], axis=1)


full_throttle = Policy(_no_carry, _full_throttle)
longest_ray = Policy(_no_carry, _longest_ray)

DRIVERS: dict[str, Policy] = {"full_throttle": full_throttle, "longest_ray": longest_ray}
