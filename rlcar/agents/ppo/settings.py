"""Settings of PPO."""

from pydantic import Field

from rlcar.settings.numbers import EnvSteps, NonNegative, Positive, Probability, Size, Units
from rlcar.settings.section import Section


class PpoConfig(Section):
    """Proximal policy optimisation (Schulman et al. 2017); defaults of Stable-Baselines3."""

    hidden_units: Units = 64
    """Units of each of the two hidden layers of policy and value network."""
    recurrent_units: int = Field(0, ge=0, le=16_384)
    """Units of a GRU before both networks, for partially observed tasks; 0 leaves it out."""
    image_units: Units = 512
    """Units of the layer after the convolutions, for environments with images. Policy and value
    are linear functions of them, without hidden layers of their own."""
    initial_log_deviation: float = Field(0.0, ge=-5.0, le=2.0)
    """Initial logarithm of the standard deviation of actions. A smaller value explores less and
    drives more smoothly."""
    learning_rate: Positive = 3e-4
    """Learning rate of the optimizer."""
    epochs: Size = 10
    """Number of passes over the collected blocks in each train step."""
    minibatch_size: EnvSteps = 64
    """Number of env steps in a minibatch."""
    discount: float = Field(0.99, gt=0.0, lt=1.0)
    """Discount of rewards for each env step."""
    lambda_: Probability = 0.95
    """The λ of generalised advantage estimation."""
    clip_ratio: Positive = 0.2
    """Clipping range of the probability ratio."""
    entropy_scale: NonNegative = 0.0
    """Weight of the entropy bonus."""
    value_scale: NonNegative = 0.5
    """Weight of the value loss."""
    gradient_norm: Positive = 0.5
    """Largest global norm of the gradients; larger ones are scaled down."""
