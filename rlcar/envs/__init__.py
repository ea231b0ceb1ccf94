"""Other environments than the race: anything of Gymnasium, behind the same specs."""

import gymnasium

CATCH_ID = "rlcar/Catch-v0"

if CATCH_ID not in gymnasium.registry:
    gymnasium.register(id=CATCH_ID, entry_point="rlcar.envs.catch:Catch")
