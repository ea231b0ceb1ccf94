"""Settings that the algorithms for recorded data share."""

from rlcar.settings.numbers import Positive, Units
from rlcar.settings.section import Section


class OfflineConfig(Section):
    """The settings that the algorithms for recorded data share."""

    hidden_units: Units = 128
    """Units of each of the two hidden layers of every network."""
    learning_rate: Positive = 1e-3
    """Learning rate of the optimizers."""
