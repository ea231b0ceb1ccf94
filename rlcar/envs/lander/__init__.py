"""A lunar lander with six degrees of freedom over rough terrain, as pure functions.

`make_lander(settings)` returns them; `rlcar/Lander-v0` is the same environment for Gymnasium.
Importing this package is cheap: import the modules that need JAX or pygame where they are used.
"""

from rlcar.envs.lander.settings import SCENARIOS, LanderSettings, Mission, mission_of

__all__ = ["SCENARIOS", "LanderSettings", "Mission", "mission_of"]
