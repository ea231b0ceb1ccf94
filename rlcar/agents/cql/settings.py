"""Settings of conservative Q-learning."""

from pydantic import Field

from rlcar.agents.offline_learning.settings import OfflineConfig
from rlcar.settings.numbers import NonNegative, Positive, Probability, Signed, Size


class CqlConfig(OfflineConfig):
    """Conservative Q-learning (Kumar et al. 2020): soft actor-critic whose critics also learn to
    give low values to actions that the data does not contain. Environments with discrete actions
    get the form for Q-networks."""

    discount: float = Field(0.99, gt=0.0, lt=1.0)
    """Discount of rewards for each env step."""
    reward_scale: Positive = 0.1
    """Factor that multiplies rewards before learning."""
    slow_rate: Probability = 0.02
    """Share of each critic that its slow copy takes over in each train step."""
    conservative_scale: NonNegative = 5.0
    """Weight of the conservative loss; 0 is plain soft actor-critic or double Q-learning."""
    action_samples: Size = 4
    """Number of actions that the conservative loss draws for each observation from each of three
    distributions: uniform, the policy, and the policy at the next observation. Discrete actions
    are all compared and need no samples."""
    target_entropy: Signed | None = None
    """Entropy that the temperature is tuned for; null means minus the number of action
    dimensions."""
    initial_temperature: Positive = 1.0
    """Initial temperature, the weight of the entropy bonus."""
    exploration: Probability = 0.1
    """Probability of a uniformly drawn action while driving, for discrete actions."""
