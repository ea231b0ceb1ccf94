"""Settings of the plain documented agent."""

from pydantic import Field

from rlcar.settings.numbers import Positive, Probability, Size, Units
from rlcar.settings.section import Section


class DocumentedConfig(Section):
    """The plain networks of the first product: no recurrence, no distributions."""

    latent_units: Units = 32
    hidden_units: Units = 64
    learning_rate: Positive = 1e-3
    imagination_length: Size = 15
    discount: float = Field(0.97, gt=0.0, lt=1.0)
    exploration_noise: Positive = 0.2
    exploration_start: Probability = 1.0
    exploration_end: Probability = 0.1
    exploration_decay: float = Field(0.999, gt=0.0, lt=1.0)  # per train step
