"""The lander's motion: a rigid body with a gimballed engine, reaction torques and lunar gravity.

State: position r and velocity v in the world (z is up), attitude q (body to world), body rates w,
fuel. With thrust F and torque T in the body, m the mass and I the inertia,

    r' = v,  v' = q F q* / m + g(r),  q' = 1/2 q (0, w),  I w' = T - w x (I w),
    m' = -|F| / (g0 Isp),  g(r) = -g (x / R, y / R, 1 - 2 z / R).

g(r) is the Moon's central field to first order in r / R. The second order is below 4e-6 m/s2 up to
an altitude of 1,500 m, while the first is 3e-3 m/s2 there.

The engine is `ENGINE_ARM_M` below the centre of mass. Inertia and centre of mass are constant: the
tanks surround the centre of mass, and the fuel is at most a tenth of the mass. The command is
constant during a control step, which is integrated by the classic Runge-Kutta method of fourth
order; the mass is then exactly linear in time. One source runs with NumPy and with JAX.
"""

from types import ModuleType
from typing import NamedTuple

import jax
import numpy as np

from rlcar.envs.lander.loops import repeat
from rlcar.envs.lander.vectors import Quaternion, Vector, rotate
from rlcar.types import Array

STEP_S = 0.1  # a control step
MOON_RADIUS_M = 1_738_300.0
MOON_MU_M3_S2 = 4.902799e12  # gravitational parameter
GRAVITY_M_S2 = MOON_MU_M3_S2 / MOON_RADIUS_M**2  # 1.6225 m/s2, at the height of the pad
STANDARD_GRAVITY_M_S2 = 9.80665
DRY_MASS_KG = 900.0
TANK_KG = 100.0
MAX_THRUST_N = 4_500.0
SPECIFIC_IMPULSE_S = 300.0
EXHAUST_M_S = SPECIFIC_IMPULSE_S * STANDARD_GRAVITY_M_S2
MAX_FLOW_KG_S = MAX_THRUST_N / EXHAUST_M_S
# The torques are a compromise. With 40 N m the noise of exploration hardly moved the attitude, so
# that PPO did not learn to control it (`docs/how-to/lander.md`); with much more it would tip the
# lander over before anything is learned.
MAX_GIMBAL_RAD = 0.025
ENGINE_ARM_M = 0.8
MAX_TORQUE_N_M = (150.0, 150.0, 75.0)
INERTIA_KG_M2 = (2_000.0, 2_000.0, 1_500.0)
ACTION_SIZE = 6
# The throttle of action 0, which carries the weight with half a tank: a policy that has not learned
# yet sinks slowly with a full tank, instead of climbing away or falling.
HOVER_THROTTLE = (DRY_MASS_KG + 0.5 * TANK_KG) * GRAVITY_M_S2 / MAX_THRUST_N
# The Runge-Kutta method: where each stage evaluates the derivative, and its weight in the result.
_STAGE_AHEAD = (0.0, 0.5, 0.5, 1.0)
_STAGE_WEIGHT = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class Motion(NamedTuple):
    """The physical state of N landers; every leaf is `[N]` float32."""

    position_m: Vector
    velocity_m_s: Vector
    attitude: Quaternion
    rates_rad_s: Vector  # in the body
    fuel_kg: Array


class Command(NamedTuple):
    """What engine and reaction torques do during a control step, each `[N]`."""

    throttle: Array  # 0 to 1
    gimbal_x_rad: Array  # turns the thrust towards the body's x axis
    gimbal_y_rad: Array  # turns the thrust towards the body's y axis
    torque_n_m: Vector


class _Rate(NamedTuple):
    """Time derivatives of the first four fields of `Motion`."""

    position_m: Vector
    velocity_m_s: Vector
    attitude: Quaternion
    rates_rad_s: Vector


def command_of(xp: ModuleType, action: Array) -> Command:
    """Returns the command of actions `[N, 6]`; they are clipped to [-1, 1], and NaN counts as 0."""
    action = xp.clip(xp.where(xp.isnan(action), 0.0, action), -1.0, 1.0)
    torque = (action[:, 3 + i] * MAX_TORQUE_N_M[i] for i in range(3))
    return Command(
        throttle=throttle_of(xp, action[:, 0]),
        gimbal_x_rad=MAX_GIMBAL_RAD * action[:, 1],
        gimbal_y_rad=MAX_GIMBAL_RAD * action[:, 2],
        torque_n_m=Vector(*torque),
    )


def throttle_of(xp: ModuleType, action: Array) -> Array:
    """Returns the throttle, 0 to 1, of the first entry of actions in [-1, 1].

    -1 is off, 0 is `HOVER_THROTTLE` and 1 is full. It is linear below 0, and has a quadratic part
    above. A kink at 0 would turn the noise of exploration into thrust, and lift the lander.
    """
    above = xp.maximum(action, 0.0)
    return HOVER_THROTTLE * (1.0 + action) + (1.0 - 2.0 * HOVER_THROTTLE) * above * above


def throttle_action(xp: ModuleType, throttle: Array) -> Array:
    """Returns the action of a throttle: the inverse of `throttle_of`."""
    more, curve = throttle - HOVER_THROTTLE, 1.0 - 2.0 * HOVER_THROTTLE
    root = xp.sqrt(HOVER_THROTTLE**2 + 4.0 * curve * xp.maximum(more, 0.0))
    return xp.where(more < 0.0, more / HOVER_THROTTLE, (root - HOVER_THROTTLE) / (2.0 * curve))


def burnt_fuel_kg(xp: ModuleType, fuel_kg: Array, throttle: Array) -> Array:
    """Returns the fuel `[N]` that a control step burns: never more than there is."""
    return xp.minimum(throttle * (MAX_FLOW_KG_S * STEP_S), fuel_kg)


def loads(xp: ModuleType, command: Command, burnt_kg: Array) -> tuple[Vector, Vector]:
    """Returns thrust (N) and torque (N m) in the body during a step that burns `burnt_kg`.

    A step that empties the tank has the mean thrust of its fuel, so that no impulse is lost.
    """
    thrust = burnt_kg * (EXHAUST_M_S / STEP_S)
    cosine_y = xp.cos(command.gimbal_y_rad)
    force = Vector(
        thrust * xp.sin(command.gimbal_x_rad) * cosine_y,
        thrust * xp.sin(command.gimbal_y_rad),
        thrust * xp.cos(command.gimbal_x_rad) * cosine_y,
    )
    # (0, 0, -arm) x force, plus the reaction torques.
    torque = Vector(
        ENGINE_ARM_M * force.y + command.torque_n_m.x,
        -ENGINE_ARM_M * force.x + command.torque_n_m.y,
        command.torque_n_m.z,
    )
    return force, torque


def fly(xp: ModuleType, motion: Motion, command: Command) -> Motion:
    """Returns the motion after one control step."""
    burnt = burnt_fuel_kg(xp, motion.fuel_kg, command.throttle)
    force, torque = loads(xp, command, burnt)
    mass = DRY_MASS_KG + motion.fuel_kg

    start = _Rate(*motion[:4])
    ahead = xp.asarray(_STAGE_AHEAD, np.float32)
    weight = xp.asarray(_STAGE_WEIGHT, np.float32)

    def stage(i: Array, carry: tuple[_Rate, _Rate]) -> tuple[_Rate, _Rate]:
        slope, total = carry
        body: _Rate = jax.tree.map(lambda x, dx: x + ahead[i] * STEP_S * dx, start, slope)
        slope = _rate(body, force, torque, mass - ahead[i] * burnt)
        return slope, jax.tree.map(lambda x, dx: x + weight[i] * dx, total, slope)

    zero: _Rate = jax.tree.map(xp.zeros_like, start)
    _, total = repeat(xp, len(_STAGE_AHEAD), stage, (zero, zero))
    end: _Rate = jax.tree.map(lambda x, dx: x + STEP_S * dx, start, total)
    fuel = xp.maximum(motion.fuel_kg - burnt, 0.0)
    return Motion(*end[:2], _normalised(xp, end.attitude), end.rates_rad_s, fuel)


def _rate(body: _Rate, force: Vector, torque: Vector, mass_kg: Array) -> _Rate:
    pushed = rotate(body.attitude, force)
    q, w = body.attitude, body.rates_rad_s
    i = Vector(*INERTIA_KG_M2)
    position, gradient = body.position_m, GRAVITY_M_S2 / MOON_RADIUS_M
    return _Rate(
        position_m=body.velocity_m_s,
        velocity_m_s=Vector(
            pushed.x / mass_kg - gradient * position.x,
            pushed.y / mass_kg - gradient * position.y,
            pushed.z / mass_kg + (2.0 * gradient * position.z - GRAVITY_M_S2),
        ),
        attitude=Quaternion(
            -0.5 * (q.x * w.x + q.y * w.y + q.z * w.z),
            0.5 * (q.w * w.x + q.y * w.z - q.z * w.y),
            0.5 * (q.w * w.y + q.z * w.x - q.x * w.z),
            0.5 * (q.w * w.z + q.x * w.y - q.y * w.x),
        ),
        rates_rad_s=Vector(
            (torque.x - (i.z - i.y) * w.y * w.z) / i.x,
            (torque.y - (i.x - i.z) * w.z * w.x) / i.y,
            (torque.z - (i.y - i.x) * w.x * w.y) / i.z,
        ),
    )


def _normalised(xp: ModuleType, q: Quaternion) -> Quaternion:
    factor = 1.0 / xp.sqrt(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z)
    return Quaternion(q.w * factor, q.x * factor, q.y * factor, q.z * factor)
