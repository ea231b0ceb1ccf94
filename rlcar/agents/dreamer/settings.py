"""Settings of the world-model agent."""

from typing import Literal

import pydantic
from pydantic import Field

from rlcar.settings.numbers import Layers, NonNegative, Positive, Probability, Size, Units
from rlcar.settings.section import Section


class WorldModelConfig(Section):
    """Recurrent state-space model; names after Hafner et al. 2025, Table of model sizes."""

    recurrent_units: Units = 256  # D, the deterministic state
    recurrent_blocks: Size = 8  # block-diagonal GRU
    hidden_units: Units = 64  # inside the dynamics
    latent_groups: Units = 8  # S
    latent_classes: Units = 8  # K
    units: Units = 64  # encoder, decoder, reward and continue heads
    encoder_layers: Layers = 2
    decoder_layers: Layers = 2
    # Without memory a belief is a latent alone, inferred from the present observation alone; in
    # dreams it follows from the last latent and the action.
    has_memory: bool = True
    image_depth: Units = 16  # channels of the first of four convolutions are twice as many
    observation_scale: Positive = 10.0  # before symlog; ours come in [0, 1]
    # Weight of the squared error against the KL: too little, and the latents keep too blurred a
    # picture of the sensors to foresee a crash.
    reconstruction_scale: Positive = 100.0
    image_scale: Positive = 1.0  # the same for images
    unimix: float = Field(0.01, ge=1e-12, le=1.0)  # without it a KL would take the log of 0
    free_nats: NonNegative = 1.0
    dynamics_scale: NonNegative = 1.0
    representation_scale: NonNegative = 0.1
    # Weights of the heads' and the dynamics' losses at dreamt steps: `open_loop_losses`.
    open_loop_scale: NonNegative = 0.0
    open_loop_dynamics_scale: NonNegative = 0.0
    open_loop_length: Size = 15

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
    layers: Layers = 2
    imagination_length: Size = 15
    imagination_last: Size = 16  # dreams start from the last so many steps of a window
    discount_horizon: float = Field(333.0, gt=1.0, le=1e9)  # discount = 1 - 1 / horizon
    lambda_: Probability = 0.95
    entropy_scale: NonNegative = 3e-4
    slow_value_rate: Probability = 0.02
    return_normaliser_rate: Probability = 0.01
    replay_value_scale: NonNegative = 0.3
    # Of world model and actor, which drives and dreams; 1 does so with the newest weights.
    policy_average_rate: float = Field(0.02, gt=0.0, le=1.0)


class OptimizerConfig(Section):
    """LaProp with adaptive gradient clipping."""

    learning_rate: Positive = 4e-5
    warmup_updates: int = Field(1000, ge=0, le=10**12)
    clip_ratio: Positive = 0.3
    epsilon: Positive = 1e-20
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.999, ge=0.0, lt=1.0)


class DreamerConfig(Section):
    """The world-model agent."""

    world_model: WorldModelConfig = WorldModelConfig()
    actor_critic: ActorCriticConfig = ActorCriticConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    # What train steps multiply matrices in: bfloat16 pays on GPUs, and on CPUs with AMX most.
    precision: Literal["float32", "bfloat16"] = "float32"
