"""Settings that SAC and TD3 share."""

from pydantic import Field

from rlcar.settings.numbers import Positive, Probability, Units
from rlcar.settings.section import Section


class QLearningConfig(Section):
    """What SAC and TD3 share: two critics, slow copies of them, one update for each env step."""

    hidden_units: Units = 256  # two layers of them, in every network
    learning_rate: Positive = 3e-4
    discount: float = Field(0.99, gt=0.0, lt=1.0)
    slow_rate: Probability = 0.005
    reward_scale: Positive = 1.0
