"""The racing simulator: pure functions of N cars, with the same bits in NumPy and JAX.

Importing this package registers the environments `rlcar/Race-v0` and `rlcar/GrandPrix-v0` with
Gymnasium and has no other effect.
"""

import gymnasium

from rlcar.sim.race import SPEC, Race, make_race
from rlcar.sim.state import CarView, Events, RaceState

ENVIRONMENT_ID = "rlcar/Race-v0"
GRAND_PRIX_ID = "rlcar/GrandPrix-v0"

if ENVIRONMENT_ID not in gymnasium.registry:
    # Entry points are strings, so that Gymnasium imports an environment only when it makes one. The
    # environments have a time limit of their own (`race.time_limit_steps`).
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
