"""Settings of the world-model agent."""

from typing import Literal

import pydantic
from pydantic import Field

from rlcar.settings.numbers import Layers, NonNegative, Positive, Probability, Size, Units
from rlcar.settings.section import Section


class WorldModelConfig(Section):
    """Recurrent state-space model; names after Hafner et al. 2025, Table of model sizes."""

    recurrent_units: Units = 256
    """Units of the deterministic, recurrent state (D)."""
    recurrent_blocks: Size = 8
    """Number of diagonal blocks of the GRU; it divides `recurrent_units`."""
    hidden_units: Units = 64
    """Hidden units of the dynamics, between latent, action and recurrent state."""
    latent_groups: Units = 8
    """Number of categorical variables in the latent state (S)."""
    latent_classes: Units = 8
    """Number of classes of each categorical variable (K)."""
    units: Units = 64
    """Hidden units of the encoder, the decoder, and the reward and continue heads."""
    encoder_layers: Layers = 2
    """Number of hidden layers of the encoder."""
    decoder_layers: Layers = 2
    """Number of hidden layers of the decoder."""
    has_memory: bool = True
    """Whether the model has a recurrent state. Without it, the latent state is inferred from the
    present observation alone; in imagination it follows from the last latent state and the
    action."""
    image_depth: Units = 16
    """Half the number of channels of the first of four convolutions, for image observations."""
    observation_scale: Positive = 10.0
    """Factor that multiplies observations before symlog; those of the race lie in [0, 1]."""
    reconstruction_scale: Positive = 100.0
    """Weight of the squared reconstruction error relative to the KL loss. If it is too small,
    the latent state represents the sensors too coarsely to predict a crash."""
    image_scale: Positive = 1.0
    """Weight of the squared reconstruction error of images."""
    unimix: float = Field(0.01, ge=1e-12, le=1.0)
    """Share of a uniform distribution in every categorical distribution; it keeps the KL finite."""
    free_nats: NonNegative = 1.0
    """Free bits: KL losses below this value, in nats, are not reduced further."""
    dynamics_scale: NonNegative = 1.0
    """Weight of the KL loss that trains the prior."""
    representation_scale: NonNegative = 0.1
    """Weight of the KL loss that trains the posterior."""
    open_loop_scale: NonNegative = 0.0
    """Weight of the losses of the reward and continue heads at imagined steps; 0 switches them
    off."""
    open_loop_dynamics_scale: NonNegative = 0.0
    """Weight of the dynamics loss at imagined steps; 0 switches it off."""
    open_loop_length: Size = 15
    """Number of steps that the open-loop losses imagine, at most half of `replay.batch_length`."""

    @pydantic.model_validator(mode="after")
    def _blocks_fit(self) -> "WorldModelConfig":
        if self.recurrent_units % self.recurrent_blocks:
            raise ValueError(
                f"recurrent_units {self.recurrent_units} is not a multiple of recurrent_blocks "
                f"{self.recurrent_blocks}"
            )
        return self


class ActorCriticConfig(Section):
    """Learning in imagination."""

    units: Units = 64
    """Hidden units of actor and critic."""
    layers: Layers = 2
    """Number of hidden layers of actor and critic."""
    imagination_length: Size = 15
    """Number of imagined steps of each trajectory (H)."""
    imagination_last: Size = 16
    """Imagined trajectories start from this many last steps of each replayed window."""
    discount_horizon: float = Field(333.0, gt=1.0, le=1e9)
    """Horizon of the discount in env steps: discount = 1 - 1 / horizon."""
    lambda_: Probability = 0.95
    """The λ of TD(λ) returns: 0 bootstraps after one step, 1 only at the end of the trajectory."""
    entropy_scale: NonNegative = 3e-4
    """Weight of the entropy bonus of the actor."""
    slow_value_rate: Probability = 0.02
    """Share of the critic that its slow copy takes over in each train step."""
    return_normaliser_rate: Probability = 0.01
    """Rate of the moving average of the range by which returns are normalised."""
    replay_value_scale: NonNegative = 0.3
    """Weight of the critic's loss on replayed, not imagined, steps."""
    policy_average_rate: float = Field(0.02, gt=0.0, le=1.0)
    """Rate of the moving average of the weights of world model and actor that choose actions; 1
    acts with the newest weights."""


class UncertaintyConfig(Section):
    """A penalty on the uncertainty of the world model in imagination, for recorded data."""

    heads: int = Field(0, ge=0, le=64)
    """Number of additional predictions of the next latent state; their disagreement is the
    uncertainty. 0 switches the penalty off."""
    units: Units = 64
    """Hidden units of each of them."""
    penalty: NonNegative = 1.0
    """Reward that an imagined step loses for each nat of disagreement."""


class OptimizerConfig(Section):
    """LaProp with adaptive gradient clipping."""

    learning_rate: Positive = 4e-5
    """Learning rate after the warm-up."""
    warmup_updates: int = Field(1000, ge=0, le=10**12)
    """Number of train steps in which the learning rate rises linearly from 0."""
    clip_ratio: Positive = 0.3
    """Largest norm of a tensor's gradient relative to the norm of the tensor (adaptive gradient
    clipping)."""
    epsilon: Positive = 1e-20
    """Constant that is added to the denominator of the update."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """Decay rate of the momentum."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """Decay rate of the moving average of squared gradients."""


class DreamerConfig(Section):
    """The world-model agent."""

    world_model: WorldModelConfig = WorldModelConfig()
    """The recurrent state-space model."""
    actor_critic: ActorCriticConfig = ActorCriticConfig()
    """Actor and critic, which learn in imagination."""
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    """The penalty on the world model's uncertainty."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer of all networks."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of matrix products in train steps; bfloat16 is faster on GPUs and on CPUs
    with AMX."""
