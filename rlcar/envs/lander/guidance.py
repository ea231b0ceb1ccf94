"""A hand-written guidance law: it shows that the stages can be flown, and is the baseline.

It turns the target thrust of `guidance_field` into a throttle and a direction, and holds that
direction with a proportional-derivative law on the attitude. It needs the observation alone, from
which it computes the physical state.
"""

from types import ModuleType
from typing import Any

import jax.numpy as jnp

from rlcar.envs.lander.dynamics import (
    DRY_MASS_KG,
    ENGINE_ARM_M,
    INERTIA_KG_M2,
    MAX_GIMBAL_RAD,
    MAX_THRUST_N,
    MAX_TORQUE_N_M,
    Motion,
    throttle_action,
)
from rlcar.envs.lander.guidance_field import target_thrust
from rlcar.envs.lander.observation import motion_of
from rlcar.envs.lander.vectors import Vector, cross, dot, rotate_back, scaled
from rlcar.types import Array, Policy, TimeStep

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
    thrust = target_thrust(xp, motion.position_m, motion.velocity_m_s)
    wanted = xp.sqrt(dot(thrust, thrust))
    mass = DRY_MASS_KG + motion.fuel_kg
    throttle = xp.clip(mass * wanted / MAX_THRUST_N, 0.0, 1.0)

    # The rotation that turns the body's z axis to the wanted direction, in the body.
    direction = rotate_back(motion.attitude, scaled(thrust, 1.0 / wanted))
    axis = Vector(xp.zeros_like(wanted), xp.zeros_like(wanted), xp.ones_like(wanted))
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
