"""Settings that SAC and TD3 share."""

from pydantic import Field

from rlcar.settings.numbers import Positive, Probability, Size, Units
from rlcar.settings.section import Section


class QLearningConfig(Section):
    """The settings that SAC and TD3 share."""

    hidden_units: Units = 256
    """Units of each of the two hidden layers of every network."""
    learning_rate: Positive = 3e-4
    """Learning rate of the optimizers."""
    discount: float = Field(0.99, gt=0.0, lt=1.0)
    """Discount of rewards for each env step."""
    return_steps: Size = 1
    """Most rewards that a target adds before the critics' value. More than one spreads late rewards
    sooner; it needs windows (replay.batch_length) that are longer by one."""
    slow_rate: Probability = 0.005
    """Share of each critic that its slow copy takes over in each train step."""
    reward_scale: Positive = 1.0
    """Factor that multiplies rewards before learning."""
