"""Settings of the plain documented agent."""

from pydantic import Field

from rlcar.settings.numbers import Positive, Probability, Size, Units
from rlcar.settings.section import Section


class DocumentedConfig(Section):
    """The plain networks of the first product: no recurrence, no distributions."""

    latent_units: Units = 32
    """Units of the latent state."""
    hidden_units: Units = 64
    """Hidden units of every network."""
    learning_rate: Positive = 1e-3
    """Learning rate of the optimizer."""
    imagination_length: Size = 15
    """Number of imagined steps of each trajectory."""
    discount: float = Field(0.97, gt=0.0, lt=1.0)
    """Discount of rewards for each env step."""
    exploration_noise: Positive = 0.2
    """Standard deviation of the Gaussian noise that is added to actions while exploring."""
    exploration_start: Probability = 1.0
    """Probability of exploring at the beginning of a training."""
    exploration_end: Probability = 0.1
    """Smallest probability of exploring."""
    exploration_decay: float = Field(0.999, gt=0.0, lt=1.0)
    """Factor by which each train step multiplies the probability of exploring."""
