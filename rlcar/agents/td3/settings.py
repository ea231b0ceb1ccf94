"""Settings of TD3."""

from rlcar.agents.q_learning.settings import QLearningConfig
from rlcar.settings.numbers import NonNegative, Size


class Td3Config(QLearningConfig):
    """Twin delayed deterministic policy gradient (Fujimoto et al. 2018)."""

    policy_delay: Size = 2
    """Number of critic updates for one update of the actor."""
    target_noise: NonNegative = 0.2
    """Standard deviation of the noise on target actions."""
    target_noise_limit: NonNegative = 0.5
    """Limit at which the noise on target actions is clipped."""
    exploration_noise: NonNegative = 0.1
    """Standard deviation of the Gaussian noise that is added to actions while driving."""
