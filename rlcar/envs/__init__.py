"""Any Gymnasium environment as a source of time steps, for the same agents as the race.

Importing this package registers `rlcar/Catch-v0` and `rlcar/Lander-v0` with Gymnasium and has no
other effect.
"""

import gymnasium

CATCH_ID = "rlcar/Catch-v0"
LANDER_ID = "rlcar/Lander-v0"

if CATCH_ID not in gymnasium.registry:
    gymnasium.register(id=CATCH_ID, entry_point="rlcar.envs.catch:Catch")
if LANDER_ID not in gymnasium.registry:
    gymnasium.register(
        id=LANDER_ID,
        entry_point="rlcar.envs.lander.gym_env:LanderEnv",
        vector_entry_point="rlcar.envs.lander.vector_env:LanderVectorEnv",
    )
