"""What no lander can do better: the least time and the least fuel of a landing.

Both are lower bounds for the easiest start of a mission. A mission that fails one is impossible for
every policy; a mission that meets both is not proven possible.
"""

import math
from typing import NamedTuple

from rlcar.envs.lander.dynamics import (
    DRY_MASS_KG,
    EXHAUST_M_S,
    GRAVITY_M_S2,
    MAX_THRUST_N,
    STEP_S,
)
from rlcar.envs.lander.ending import LANDING_ALTITUDE_M, LANDING_SPEED_M_S
from rlcar.envs.lander.settings import LanderSettings, Mission, mission_of
from rlcar.envs.lander.terrain import PAD_RADIUS_M


class Bounds(NamedTuple):
    """Lower bounds for the easiest start of a mission."""

    time_s: float
    fuel_kg: float


def bounds_of(mission: Mission) -> Bounds:
    """Returns the least time and fuel of a landing from the easiest start of a mission.

    The largest acceleration is a = F / m with an empty tank. Time: along the vertical at most g + a
    downwards and a - g upwards, along the horizontal at most a; the longer of the two times. Fuel:
    a free fall and one braking phase at full thrust need least (Meditch, "On the problem of optimal
    thrust programming for a lunar soft landing", 1964). Braking for t seconds takes an impulse a t
    per mass, which the rocket equation m (1 - exp(-a t / c)) converts into fuel, with the exhaust
    speed c.
    """
    height = mission.start_altitude_min_m - LANDING_ALTITUDE_M
    offset = mission.start_offset_min_m - PAD_RADIUS_M
    thrust = MAX_THRUST_N / DRY_MASS_KG
    braking, fastest = thrust - GRAVITY_M_S2, mission.start_descent_max_m_s
    down_s = _least_time_s(height, fastest, thrust + GRAVITY_M_S2, braking)
    across_s = _least_time_s(offset, mission.start_drift_max_m_s, thrust, thrust)
    turning = _turning_speed_m_s(height, fastest / 3.0, GRAVITY_M_S2, braking)
    impulse = thrust * max(turning - LANDING_SPEED_M_S, 0.0) / braking
    mass = DRY_MASS_KG + mission.fuel_kg
    return Bounds(max(down_s, across_s), mass * (1.0 - math.exp(-impulse / EXHAUST_M_S)))


def infeasibility(settings: LanderSettings) -> str | None:
    """Returns a sentence with numbers if no policy could land with these settings, else None."""
    mission = mission_of(settings)
    bounds = bounds_of(mission)
    limit_s = mission.time_limit_steps * STEP_S
    start = f"from {mission.start_altitude_min_m:g} m, the lowest start of {settings.scenario},"
    if bounds.time_s > limit_s:
        return (
            f"no lander can land within time_limit_steps = {mission.time_limit_steps} "
            f"({limit_s:.1f} s): {start} the largest acceleration and then the "
            f"hardest braking take {bounds.time_s:.1f} s; raise time_limit_steps to "
            f"{math.ceil(bounds.time_s / STEP_S)} or more, or start lower"
        )
    if bounds.fuel_kg > mission.fuel_kg:
        return (
            f"no lander can land with fuel_kg = {mission.fuel_kg:g}: {start} braking to "
            f"{LANDING_SPEED_M_S:g} m/s burns at least {bounds.fuel_kg:.1f} kg; give more fuel, or "
            "start lower"
        )
    return None


def _turning_speed_m_s(distance_m: float, start: float, speed_up: float, slow_down: float) -> float:
    """Returns the speed V at which braking must begin, to arrive at the landing speed v.

    (V^2 - start^2) / 2 speed_up + (V^2 - v^2) / 2 slow_down = distance; at least the start speed.
    """
    up, down = 0.5 / speed_up, 0.5 / slow_down
    energy = max(distance_m, 0.0) + up * start**2 + down * LANDING_SPEED_M_S**2
    return max(math.sqrt(energy / (up + down)), start)


def _least_time_s(distance_m: float, start: float, speed_up: float, slow_down: float) -> float:
    """Returns the least time for a distance, with full acceleration and then full braking."""
    if distance_m <= 0.0:
        return 0.0
    turning = _turning_speed_m_s(distance_m, start, speed_up, slow_down)
    if turning <= start:
        return distance_m / start
    if turning <= LANDING_SPEED_M_S:
        return (math.sqrt(start**2 + 2.0 * speed_up * distance_m) - start) / speed_up
    return (turning - start) / speed_up + (turning - LANDING_SPEED_M_S) / slow_down
