"""Settings of TD3."""

from rlcar.agents.q_learning.settings import QLearningConfig
from rlcar.settings.numbers import NonNegative, Size


class Td3Config(QLearningConfig):
    """Twin delayed deterministic policy gradient (Fujimoto et al. 2018)."""

    policy_delay: Size = 2  # updates of the critics for one of the actor
    target_noise: NonNegative = 0.2
    target_noise_limit: NonNegative = 0.5
    exploration_noise: NonNegative = 0.1
