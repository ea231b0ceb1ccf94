"""Atari games through three back ends that give the same observations, rewards and episodes.

| Back end    | Emulators                                                       |
| ----------- | --------------------------------------------------------------- |
| `ale`       | the vector environment of ale-py, in C++ with threads (default) |
| `envpool`   | EnvPool, in C++ with threads                                    |
| `gymnasium` | one Gymnasium environment of ale-py after another               |

The back ends emulate, repeat actions, and scale the screen. Everything else is done here for all of
them: frame stacks, reward clipping, and lost lives.
"""

from rlcar.envs.atari.environments import AtariEnvironments
from rlcar.envs.atari.games import is_atari_game

__all__ = ["AtariEnvironments", "is_atari_game"]
