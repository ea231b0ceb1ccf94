"""The racing world: pure functions over N cars, the same bits in NumPy and JAX."""

import gymnasium

from rlcar.sim.race import SPEC, Race, make_race
from rlcar.sim.state import CarView, Events, RaceState

ENVIRONMENT_ID = "rlcar/Race-v0"

if ENVIRONMENT_ID not in gymnasium.registry:
    # A string, so that the environment is imported only when somebody makes one. It ends its own
    # episodes (`time_limit_steps`), so Gymnasium's limit stays off.
    gymnasium.register(id=ENVIRONMENT_ID, entry_point="rlcar.sim.gym_env:RaceEnv")

__all__ = ["ENVIRONMENT_ID", "SPEC", "CarView", "Events", "Race", "RaceState", "make_race"]
