"""A hand-written guidance law: it shows that the stages can be flown, and is the baseline.

It follows the target velocity of `guidance_field` with a proportional law, turns the wanted
acceleration into thrust and a direction, and holds that direction with a proportional-derivative
law on the attitude. It needs the observation alone, from which it computes the physical state.
"""

from types import ModuleType
from typing import Any

import jax.numpy as jnp

from rlcar.envs.lander.dynamics import (
    DRY_MASS_KG,
    ENGINE_ARM_M,
    GRAVITY_M_S2,
    INERTIA_KG_M2,
    MAX_GIMBAL_RAD,
    MAX_THRUST_N,
    MAX_TORQUE_N_M,
    Motion,
    throttle_action,
)
from rlcar.envs.lander.ending import LEG_M
from rlcar.envs.lander.guidance_field import target_velocity
from rlcar.envs.lander.observation import motion_of
from rlcar.envs.lander.vectors import Vector, cross, minus, rotate_back
from rlcar.types import Array, Policy, TimeStep

_VELOCITY_GAIN_PER_S = (0.5, 0.5, 1.2)
_LOOK_AHEAD_S = 1.0  # the target velocity is that of the place where the lander will be
# Horizontal over vertical acceleration: a tilt of 22 degrees, and near the ground less.
_LARGEST_SLOPE, _LEAST_SLOPE, _SLOPE_PER_M = 0.4, 0.1, 0.025
_STIFFNESS_PER_S2, _DAMPING_PER_S = 0.5, 1.3
_YAW_STIFFNESS_PER_S2, _YAW_DAMPING_PER_S = 0.1, 0.6


def guidance_policy() -> Policy:
    """Returns the guidance law as a policy without memory."""

    def act(
        params: Any, carry: Array, time_step: TimeStep, key: Array, explore: bool
    ) -> tuple[Array, Array]:
        del params, key, explore
        return carry, guidance_action(jnp, motion_of(jnp, time_step.observation))

    return Policy(lambda number: jnp.zeros((number, 0)), act)


def guidance_action(xp: ModuleType, motion: Motion) -> Array:
    """Returns the actions `[N, 6]` of the guidance law."""
    position, velocity = motion.position_m, motion.velocity_m_s
    ahead = Vector(*(p + _LOOK_AHEAD_S * v for p, v in zip(position, velocity, strict=True)))
    target = target_velocity(xp, ahead, ahead.z - LEG_M)
    error = minus(target, velocity)
    gain = Vector(*_VELOCITY_GAIN_PER_S)
    up = xp.maximum(gain.z * error.z + GRAVITY_M_S2, 0.3)
    east, north = gain.x * error.x, gain.y * error.y
    slope = xp.sqrt(east * east + north * north) / up
    height = xp.maximum(position.z - LEG_M, 0.0)
    most = xp.minimum(_LARGEST_SLOPE, _LEAST_SLOPE + _SLOPE_PER_M * height)
    factor = xp.minimum(1.0, most / xp.maximum(slope, 1e-6))
    east, north = east * factor, north * factor
    wanted = xp.sqrt(east * east + north * north + up * up)
    mass = DRY_MASS_KG + motion.fuel_kg
    throttle = xp.clip(mass * wanted / MAX_THRUST_N, 0.0, 1.0)

    # The rotation that turns the body's z axis to the wanted direction, in the body.
    direction = rotate_back(motion.attitude, Vector(east / wanted, north / wanted, up / wanted))
    axis = Vector(xp.zeros_like(up), xp.zeros_like(up), xp.ones_like(up))
    turn = cross(axis, direction)
    rates, q = motion.rates_rad_s, motion.attitude
    torque_x = INERTIA_KG_M2[0] * (_STIFFNESS_PER_S2 * turn.x - _DAMPING_PER_S * rates.x)
    torque_y = INERTIA_KG_M2[1] * (_STIFFNESS_PER_S2 * turn.y - _DAMPING_PER_S * rates.y)
    yaw = 2.0 * q.z * xp.where(q.w < 0.0, -1.0, 1.0)
    torque_z = INERTIA_KG_M2[2] * (-_YAW_STIFFNESS_PER_S2 * yaw - _YAW_DAMPING_PER_S * rates.z)

    # The gimbal takes what the reaction torques cannot: T_x = arm F_y, T_y = -arm F_x.
    left_x = torque_x - xp.clip(torque_x, -MAX_TORQUE_N_M[0], MAX_TORQUE_N_M[0])
    left_y = torque_y - xp.clip(torque_y, -MAX_TORQUE_N_M[1], MAX_TORQUE_N_M[1])
    lever = ENGINE_ARM_M * xp.maximum(throttle, 0.05) * (MAX_THRUST_N * MAX_GIMBAL_RAD)
    entries = [
        throttle_action(xp, throttle),
        -left_y / lever,
        left_x / lever,
        *(
            torque / limit
            for torque, limit in zip((torque_x, torque_y, torque_z), MAX_TORQUE_N_M, strict=True)
        ),
    ]
    return xp.clip(xp.stack(entries, axis=1), -1.0, 1.0)
