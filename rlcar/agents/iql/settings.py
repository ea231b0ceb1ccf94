"""Settings of implicit Q-learning."""

from pydantic import Field

from rlcar.agents.offline_learning.settings import OfflineConfig
from rlcar.settings.numbers import NonNegative, Positive, Probability


class IqlConfig(OfflineConfig):
    """Implicit Q-learning (Kostrikov et al. 2022): its critics see recorded actions only, and the
    policy imitates those actions that turned out better than the others in the same state."""

    discount: float = Field(0.99, gt=0.0, lt=1.0)
    """Discount of rewards for each env step."""
    reward_scale: Positive = 0.1
    """Factor that multiplies rewards before learning."""
    slow_rate: Probability = 0.005
    """Share of each critic that its slow copy takes over in each train step."""
    expectile: float = Field(0.9, gt=0.0, lt=1.0)
    """Expectile of the recorded actions' values that the value of a state stands for: 0.5 is their
    mean, and values near 1 approach the best recorded action."""
    advantage_scale: NonNegative = 10.0
    """Factor of advantages in the exponent of the weights with which the policy imitates actions;
    0 imitates all actions alike."""
    largest_weight: Positive = 100.0
    """Limit of these weights."""
    exploration_noise: NonNegative = 0.1
    """Standard deviation of the Gaussian noise that is added to actions while driving."""
