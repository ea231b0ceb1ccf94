"""The lander in Basilisk, an independent simulator of spacecraft, to check our dynamics against.

It needs the extra `basilisk`, which nothing else needs, in an environment of its own. Basilisk has
the true central field of the Moon, describes the attitude by modified Rodrigues parameters, and
integrates with its own Runge-Kutta method. The mass during a control step is that of its middle.
"""

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from rlcar.envs.lander.dynamics import (
    DRY_MASS_KG,
    INERTIA_KG_M2,
    MOON_RADIUS_M,
    STEP_S,
    Motion,
    burnt_fuel_kg,
    command_of,
    fly,
    loads,
)
from rlcar.envs.lander.vectors import Quaternion, Vector
from rlcar.errors import UserError

_STEP_NS = round(STEP_S * 1e9)


class BasiliskLander:
    """One lander in Basilisk; `reset` puts it into a state, and `step` flies one control step."""

    def __init__(self) -> None:
        """Builds the simulation; raises UserError if Basilisk is not installed."""
        try:
            from Basilisk.simulation import extForceTorque, spacecraft
            from Basilisk.utilities import SimulationBaseClass, simIncludeGravBody
        except ImportError as error:
            raise UserError(
                "the package bsk (Basilisk), the reference for the lander's physics, is not fully "
                f"installed ({error}): install it with pip install 'rlcar[basilisk]'"
            ) from error
        self._simulation = SimulationBaseClass.SimBaseClass()
        process = self._simulation.CreateNewProcess("process")
        process.addTask(self._simulation.CreateNewTask("task", _STEP_NS))
        self._body = spacecraft.Spacecraft()
        self._body.hub.mHub = DRY_MASS_KG
        self._body.hub.IHubPntBc_B = np.diag(INERTIA_KG_M2).tolist()
        self._body.hub.r_CN_NInit = [[0.0], [0.0], [MOON_RADIUS_M]]
        self._loads = extForceTorque.ExtForceTorque()
        self._body.addDynamicEffector(self._loads)
        self._gravity = simIncludeGravBody.gravBodyFactory()
        self._gravity.createMoon().isCentralBody = True
        self._gravity.addBodiesTo(self._body)
        self._simulation.AddModelToTask("task", self._loads)
        self._simulation.AddModelToTask("task", self._body)
        self._simulation.InitializeSimulation()
        hub = self._body.hub
        names = (
            hub.nameOfHubPosition,
            hub.nameOfHubVelocity,
            hub.nameOfHubSigma,
            hub.nameOfHubOmega,
        )
        self._states = [self._body.dynManager.getStateObject(name) for name in names]
        self._time_ns = 0
        self._fuel_kg = 0.0
        # The first call only initialises the time of the integrator.
        self._execute()

    def reset(self, motion: Motion) -> None:
        """Puts the lander into a state whose N is 1."""
        position, velocity = _numbers(motion.position_m), _numbers(motion.velocity_m_s)
        q = _numbers(motion.attitude)
        q = q * (np.sign(q[0]) or 1.0) / np.linalg.norm(q)
        sigma = q[1:] / (1.0 + q[0])
        moved = position + [0.0, 0.0, MOON_RADIUS_M]
        values: list[Any] = [moved, velocity, sigma, _numbers(motion.rates_rad_s)]
        for state, value in zip(self._states, values, strict=True):
            state.setState([[float(number)] for number in value])
        self._fuel_kg = float(np.asarray(motion.fuel_kg).reshape(-1)[0])

    def step(self, action: np.ndarray) -> None:
        """Flies one control step with an action `[6]`."""
        command = command_of(np, np.asarray(action, np.float64)[None])
        burnt = burnt_fuel_kg(np, np.array([self._fuel_kg]), command.throttle)
        force, torque = loads(np, command, burnt)
        self._loads.extForce_B = [[float(part[0])] for part in force]
        self._loads.extTorquePntB_B = [[float(part[0])] for part in torque]
        self._body.hub.mHub = DRY_MASS_KG + self._fuel_kg - 0.5 * float(burnt[0])
        # Otherwise Basilisk would use a new mass only from the next step on.
        self._body.updateSCMassProps(self._time_ns * 1e-9)
        self._fuel_kg = max(self._fuel_kg - float(burnt[0]), 0.0)
        self._execute()

    def motion(self) -> Motion:
        """Returns the state, `[1]` float64."""
        position, velocity, sigma, rates = (
            np.array(state.getState(), np.float64).reshape(-1) for state in self._states
        )
        square = float(sigma @ sigma)
        q = np.array([1.0 - square, *(2.0 * sigma)]) / (1.0 + square)
        return Motion(
            position_m=Vector(*(position - [0.0, 0.0, MOON_RADIUS_M])[:, None]),
            velocity_m_s=Vector(*velocity[:, None]),
            attitude=Quaternion(*q[:, None]),
            rates_rad_s=Vector(*rates[:, None]),
            fuel_kg=np.array([self._fuel_kg]),
        )

    def _execute(self) -> None:
        self._simulation.ConfigureStopTime(self._time_ns)
        self._simulation.ExecuteSimulation()
        self._time_ns += _STEP_NS


def _numbers(vector: Any) -> np.ndarray:
    return np.array([float(np.asarray(part).reshape(-1)[0]) for part in vector])


class Comparison(NamedTuple):
    """Our dynamics beside Basilisk, from the same states and with the same actions."""

    error_m_s: float  # the largest difference of the velocity after the flights
    error_m: float  # the largest difference of the position
    basilisk_steps_per_s: float  # control steps per second of one process's CPU time


def compare(flights: int, generator: np.random.Generator, steps: int = 100) -> Comparison:
    """Flies from random states with random actions in both; ours compute in float32.

    The states have any attitude, rates up to 0.3 rad/s about each axis, speeds up to 30 m/s along
    each axis, altitudes up to 1,500 m, offsets up to 800 m along each axis, and any fill of the
    tank. Raises UserError if Basilisk is not installed.
    """
    reference = BasiliskLander()

    def drawn(low: float, high: float, size: int = 3) -> list[np.ndarray]:
        return list(generator.uniform(low, high, (size, flights)).astype(np.float32))

    q = generator.normal(size=(4, flights))
    start = Motion(
        position_m=Vector(*drawn(-800.0, 800.0, 2), *drawn(0.0, 1_500.0, 1)),
        velocity_m_s=Vector(*drawn(-30.0, 30.0)),
        attitude=Quaternion(*(q / np.linalg.norm(q, axis=0)).astype(np.float32)),
        rates_rad_s=Vector(*drawn(-0.3, 0.3)),
        fuel_kg=drawn(0.0, 100.0, 1)[0],
    )
    actions = generator.uniform(-1.0, 1.0, (steps, flights, 6)).astype(np.float32)
    ours = start
    for action in actions:
        ours = fly(np, ours, command_of(np, action))
    speeds, places, cpu_s = [], [], 0.0
    for i in range(flights):
        reference.reset(jax.tree.map(lambda part, i=i: part[i : i + 1], start))
        began = time.process_time()
        for action in actions[:, i]:
            reference.step(action)
        cpu_s += time.process_time() - began
        theirs, mine = reference.motion(), jax.tree.map(lambda part, i=i: part[i : i + 1], ours)
        speeds.append(_difference(theirs.velocity_m_s, mine.velocity_m_s))
        places.append(_difference(theirs.position_m, mine.position_m))
    return Comparison(max(speeds), max(places), flights * steps / cpu_s)


def _difference(a: Vector, b: Vector) -> float:
    return float(np.linalg.norm(_numbers(a) - _numbers(b)))
