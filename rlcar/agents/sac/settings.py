"""Settings of SAC."""

from rlcar.agents.q_learning.settings import QLearningConfig
from rlcar.settings.numbers import Positive, Signed


class SacConfig(QLearningConfig):
    """Soft actor-critic (Haarnoja et al. 2018) with a learnt temperature."""

    target_entropy: Signed | None = None
    """Entropy that the temperature is tuned for; null means minus the number of action
    dimensions."""
    initial_temperature: Positive = 1.0
    """Initial temperature, the weight of the entropy bonus."""
