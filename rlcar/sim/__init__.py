"""The racing world: pure functions over N cars, the same bits in NumPy and JAX."""

import gymnasium

from rlcar.sim.race import SPEC, Race, make_race
from rlcar.sim.state import CarView, Events, RaceState

ENVIRONMENT_ID = "rlcar/Race-v0"
GRAND_PRIX_ID = "rlcar/GrandPrix-v0"

if ENVIRONMENT_ID not in gymnasium.registry:
    # Strings, so that an environment is imported only when somebody makes one. They end their own
    # episodes (`time_limit_steps`), so Gymnasium's limit stays off.
    for name, world in ((ENVIRONMENT_ID, "classic"), (GRAND_PRIX_ID, "grand-prix")):
        gymnasium.register(
            id=name,
            entry_point="rlcar.sim.gym_env:RaceEnv",
            vector_entry_point="rlcar.sim.vector_env:RaceVectorEnv",
            kwargs={"world": world},
        )

__all__ = [
    "ENVIRONMENT_ID",
    "GRAND_PRIX_ID",
    "SPEC",
    "CarView",
    "Events",
    "Race",
    "RaceState",
    "make_race",
]
