"""The observation: what its entries mean, how they are computed, and how they are read back."""

from types import ModuleType

import numpy as np
from gymnasium import spaces

from rlcar.config.schema import Entry
from rlcar.envs.lander.dynamics import MAX_GIMBAL_RAD, MAX_TORQUE_N_M, TANK_KG, Motion
from rlcar.envs.lander.ending import LEG_M
from rlcar.envs.lander.guidance_field import target_velocity
from rlcar.envs.lander.lidar import RANGE_M, ranges
from rlcar.envs.lander.settings import LanderSettings
from rlcar.envs.lander.terrain import Ground, height_m
from rlcar.envs.lander.vectors import Quaternion, Vector, minus
from rlcar.types import Array

FIXED_ENTRIES = 19  # before those of the lidar
LARGEST = 4.0  # entries are clipped here; only a lander that spins gets this far
_LENGTH_UNIT_M, _SPEED_UNIT_M_S = 10.0, 1.0
_LENGTH_SCALE, _SPEED_SCALE = 5.0, 4.0  # 1.0 means 1,474 m and 53.6 m/s
_QUATERNION_UNIT, _RATE_UNIT_RAD_S, _TIME_UNIT_S = 0.25, 0.5, 150.0


def observation_of(
    xp: ModuleType, ground: Ground, motion: Motion, left_s: Array, rays: int
) -> Array:
    """Returns the observations `[N, O]` float32, as the table of `LanderEnv` describes them.

    `left_s` `[N]` is the time until the time limit.
    """
    position = motion.position_m
    altitude = position.z - height_m(xp, ground, position.x, position.y)
    q = motion.attitude
    sign = xp.where(q.w < 0.0, -1.0, 1.0).astype(np.float32)  # q and -q are the same attitude
    error = minus(motion.velocity_m_s, target_velocity(xp, position, position.z - LEG_M))
    entries = [
        *(_compressed(xp, x, _LENGTH_UNIT_M, _LENGTH_SCALE) for x in (*position, altitude)),
        *(_compressed(xp, v, _SPEED_UNIT_M_S, _SPEED_SCALE) for v in motion.velocity_m_s),
        q.w * sign,
        *(sign * part * (1.0 / _QUATERNION_UNIT) for part in (q.x, q.y, q.z)),
        *(rate * (1.0 / _RATE_UNIT_RAD_S) for rate in motion.rates_rad_s),
        motion.fuel_kg * (1.0 / TANK_KG),
        left_s * (1.0 / _TIME_UNIT_S),
        *(_compressed(xp, v, _SPEED_UNIT_M_S, _SPEED_SCALE) for v in error),
        *ranges(xp, ground, position, altitude, rays),
    ]
    return xp.clip(xp.stack(entries, axis=1), -LARGEST, LARGEST).astype(np.float32)


def motion_of(xp: ModuleType, observation: Array) -> Motion:
    """Returns the physical state of observations `[N, O]`, up to rounding and clipping."""
    entry = [observation[:, i] for i in range(FIXED_ENTRIES)]

    def lengths(values: list[Array], unit: float, scale: float) -> Vector:
        return Vector(*(xp.sign(x) * xp.expm1(xp.abs(x) * scale) * unit for x in values))

    return Motion(
        position_m=lengths(entry[0:3], _LENGTH_UNIT_M, _LENGTH_SCALE),
        velocity_m_s=lengths(entry[4:7], _SPEED_UNIT_M_S, _SPEED_SCALE),
        attitude=Quaternion(entry[7], *(part * _QUATERNION_UNIT for part in entry[8:11])),
        rates_rad_s=Vector(*(rate * _RATE_UNIT_RAD_S for rate in entry[11:14])),
        fuel_kg=entry[14] * TANK_KG,
    )


def entries_of(settings: LanderSettings) -> tuple[list[Entry], list[Entry]]:
    """Describes the numbers of an observation and of an action, for the published schema."""
    length = f"log(1 + |x| / {_LENGTH_UNIT_M:g} m) / {_LENGTH_SCALE:g}, with the sign of x"
    speed = f"log(1 + |v| / {_SPEED_UNIT_M_S:g} m/s) / {_SPEED_SCALE:g}, with the sign of v"
    observation = [
        *(_entry(f"position_{axis}", length, LARGEST) for axis in "xyz"),
        _entry("altitude", length, LARGEST),
        *(_entry(f"velocity_{axis}", speed, LARGEST) for axis in "xyz"),
        _entry("attitude_w", "1", 1.0, 0.0),
        *(_entry(f"attitude_{axis}", f"{_QUATERNION_UNIT:g}", LARGEST) for axis in "xyz"),
        *(_entry(f"rate_{axis}", f"{_RATE_UNIT_RAD_S:g} rad/s", LARGEST) for axis in "xyz"),
        _entry("fuel", f"{TANK_KG:g} kg", 1.0, 0.0),
        _entry("time_left", f"{_TIME_UNIT_S:g} s", LARGEST, 0.0),
        *(_entry(f"velocity_error_{axis}", speed, LARGEST) for axis in "xyz"),
        *(
            _entry(f"lidar_{360.0 * ray / settings.lidar_rays:g}_deg", f"{RANGE_M:g} m", 1.0, 0.0)
            for ray in range(settings.lidar_rays)
        ),
    ]
    action = [
        _entry("throttle", "full; -1 is off, 0 hovers", 1.0),
        *(_entry(f"gimbal_{axis}", f"{MAX_GIMBAL_RAD:g} rad", 1.0) for axis in "xy"),
        *(
            _entry(f"torque_{axis}", f"{limit:g} N m", 1.0)
            for axis, limit in zip("xyz", MAX_TORQUE_N_M, strict=True)
        ),
    ]
    return observation, action


def _compressed(xp: ModuleType, value: Array, unit: float, scale: float) -> Array:
    """Returns sign(x) log(1 + |x| / unit) / scale: fine near 0, and about [-1, 1] far away."""
    return xp.sign(value) * xp.log1p(xp.abs(value) * (1.0 / unit)) * (1.0 / scale)


def _entry(name: str, unit: str, high: float, low: float | None = None) -> Entry:
    return Entry(name=name, unit=unit, low=-high if low is None else low, high=high)


def box_of(settings: LanderSettings) -> spaces.Box:
    """Returns the observation space of Gymnasium."""
    observation, _ = entries_of(settings)
    low = np.array([entry.low for entry in observation], np.float32)
    high = np.array([entry.high for entry in observation], np.float32)
    return spaces.Box(low, high, dtype=np.float32)
