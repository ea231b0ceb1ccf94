"""Settings of PPO."""

from pydantic import Field

from rlcar.settings.numbers import EnvSteps, NonNegative, Positive, Probability, Size, Units
from rlcar.settings.section import Section


class PpoConfig(Section):
    """Proximal policy optimisation (Schulman et al. 2017); defaults of Stable-Baselines3."""

    hidden_units: Units = 64  # two layers of them, for the policy and for the value
    # Of a GRU before them, for what is hidden; 0: none.
    recurrent_units: int = Field(0, ge=0, le=16_384)
    # Of the actions' deviation; less explores less, and drives finer.
    initial_log_deviation: float = Field(0.0, ge=-5.0, le=2.0)
    learning_rate: Positive = 3e-4
    epochs: Size = 10
    minibatch_size: EnvSteps = 64
    discount: float = Field(0.99, gt=0.0, lt=1.0)
    lambda_: Probability = 0.95
    clip_ratio: Positive = 0.2
    entropy_scale: NonNegative = 0.0
    value_scale: NonNegative = 0.5
    gradient_norm: Positive = 0.5
