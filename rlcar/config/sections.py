"""Settings of replay buffer, environment, data and training, for all algorithms."""

import re
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from rlcar.settings.numbers import (
    EnvSteps,
    Integer,
    Probability,
    Seconds,
    Signed,
    Size,
    Times,
    Whole,
)
from rlcar.settings.section import Section


class ReplayConfig(Section):
    """The replay buffer and how often it is used."""

    capacity_env_steps: EnvSteps = 500_000
    """Number of env steps that the replay buffer holds; the oldest are overwritten."""
    min_env_steps: EnvSteps = 1024
    """Number of env steps in the buffer before the first train step."""
    batch_size: Size = 16
    """Number of windows in a batch (B)."""
    batch_length: int = Field(32, ge=2, le=65_536)
    """Number of env steps in each window of a batch (T), at most `training.block_length`."""
    samples_per_insert: float = Field(16.0, ge=1e-6, le=1e6)
    """Number of replayed env steps for each new env step: the train ratio."""
    on_device: bool = False
    """Whether the buffer lies in the memory of the learner's device, where batches are then cut.
    The whole capacity is allocated at the start."""


_Name = Annotated[str, Field(max_length=100, pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
_Argument = bool | Integer | Signed | Annotated[str, Field(max_length=1000)] | None


class AtariConfig(Section):
    """Rules of Atari games, `ALE/NAME-v5`, which are the same in every back end."""

    frame_skip: int = Field(4, ge=1, le=64)
    """Number of frames for which each action is repeated. A time step shows the maximum of the
    newest two of them."""
    gray_scale: bool = True
    """Whether images are gray: one channel in place of three."""
    start_frames: int = Field(30, ge=1, le=10_000)
    """A game begins with a random number of frames without action, less than this number."""
    sticky_action_probability: Probability = 0.0
    """Probability that a frame repeats the action of the frame before, whatever the policy
    chose."""
    full_action_space: bool = False
    """Whether a policy chooses among all 18 actions in place of those that the game uses."""
    reward_clipping: bool = True
    """Whether a training learns from rewards that are clipped to [-1, 1]. Evaluations report the
    rewards of the game."""
    life_loss_ends_episode: bool = False
    """Whether a lost life ends an episode of a training, while the game goes on. Evaluations play
    whole games."""


class EnvironmentConfig(Section):
    """An environment of Gymnasium in place of the race."""

    id: str = ""
    """Gymnasium environment to train on, as `gymnasium.make` takes it, or `module:id`. Empty
    means the race."""
    settings: dict[_Name, _Argument] = Field({}, max_length=100)
    """Keyword arguments for the environment, by name, as `gymnasium.make` passes them on. A
    compiled environment checks them."""
    backend: Literal["gymnasium", "ale", "envpool"] | None = None
    """Library that steps the environments. `ale` (ale-py) and `envpool` step Atari games in
    threads, `gymnasium` steps one environment after another. null means `ale` for Atari games and
    `gymnasium` for all others."""
    atari: AtariConfig = AtariConfig()
    """Rules of Atari games, if `environment.settings` is empty."""
    image_size_px: Literal[16, 32, 42, 64, 84] | None = None
    """Side of the square to which images are resized. null keeps images that are squares of 16, 32
    or 64 pixels, and resizes others to 64."""
    frame_stack: int | None = Field(None, ge=1, le=16)
    """Number of newest images in an observation, along the channels. null means 4 for an algorithm
    without memory, and 1 for one that remembers."""
    time_limit_steps: EnvSteps | None = None
    """Number of env steps after which an episode is cut off; null means the environment's own
    limit."""
    action_limit: float | None = Field(None, gt=0.0, le=1e12)
    """Bound that replaces action bounds which are infinite or beyond 1e12: the policy's range
    [-1, 1] is mapped to it. null refuses environments with such bounds."""


class DataConfig(Section):
    """A data set of recorded episodes to learn from in place of driving."""

    folder: str = ""
    """Folder of the data set. Empty means driving."""
    fingerprint: str = Field("", pattern="^([0-9a-f]{64})?$")
    """SHA-256 over the parts of the data set, by which a resumed training recognises it. The
    command fills it in."""
    origins: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = Field((), strict=False)
    """The same of the data sets that it was split or merged from. The command fills it in."""
    has_environment: bool = True
    """Whether the environment of the recording can be made, so that policies are evaluated in it.
    The command fills it in."""
    observation_size: Whole = 0
    """Count of numbers in an observation, for data whose environment cannot be made. The command
    fills it in, like the next three."""
    action_size: Whole = 0
    """Count of numbers in an action, or of discrete actions, for such data."""
    is_discrete: bool = False
    """Whether the actions of such data are discrete."""
    image_shape: tuple[Size, ...] = Field((), max_length=3, strict=False)
    """Height, width and channels of the images of such data; empty without images."""


class TrainingConfig(Section):
    """Length and width of a training, and its rhythm."""

    env_steps: EnvSteps = 60_000
    """Number of env steps after which the training ends, over all cars."""
    episodes: EnvSteps | None = None
    """Number of completed episodes after which the training ends too, if that comes first. null
    means no such limit."""
    patience_evaluations: Times = 0
    """Number of evaluations in a row that bring no improvement of at least 1 % after which the
    training ends too. Evaluations in which no episode succeeds do not count. 0 means no such
    limit."""
    cars: Size = 16
    """Number of cars that each simulator drives at once (N)."""
    block_length: Size = 64
    """Number of env steps of each car in a block, the unit in which trajectories travel (T)."""
    blocks_per_call: Size = 1
    """Number of blocks that an on-policy learner drives and learns from in one compiled call, if
    more than 1. This needs an on-policy algorithm, one process, and the race or another compiled
    environment."""
    past_opponents_share: Probability = 0.25
    """With several cars on a track: share of the cars whose opponents are earlier versions of the
    policy. The opponents of the others are the present policy, so all cars of their tracks
    learn."""
    past_opponents_every_env_steps: EnvSteps = 20_000
    """Number of env steps of a simulator after which the policy becomes one of the earlier
    versions."""
    past_opponents_kept: int = Field(8, ge=1, le=64)
    """Number of newest earlier versions from which opponents are drawn, block by block."""
    learner_devices: Size = 1
    """Number of devices of the learner's host that share each batch."""
    evaluate_every_env_steps: EnvSteps = 2048
    """Number of env steps between evaluations."""
    evaluate_set: Literal["train", "validation"] = "validation"
    """Set of tracks on which evaluations drive while training; the best policy is chosen by
    them."""
    log_every_s: Seconds = 1.0
    """Time between two rows of `metrics.jsonl`."""
    checkpoint_every_s: Seconds = 60.0
    """Time between two checkpoints."""
    checkpoints_kept: Size = 3
    """Number of newest checkpoints that are kept."""
    replay_every_s: Seconds = 300.0
    """Time between two checkpoints that hold the whole replay buffer; those between hold only
    what was added since."""
    rollbacks: Times = 0
    """Number of times that a NaN has halved the learning rate. The training loop counts here;
    leave it at 0."""
    start_from: str = ""
    """Checkpoint of another run whose learner and newest recorded steps this training begins with.
    Empty means a new learner. `rlcar train --from` fills it in."""
    start_env_steps: Whole = 100_000
    """Number of newest env steps in that checkpoint's replay buffer that are kept, so that the
    learner does not forget them while it has few steps of its own."""
    storage: str = ""
    """Object store or folder that mirrors the run: `s3://bucket/prefix`, `file:///folder` or a
    path. Empty means none."""
    deterministic: bool = False
    """Whether two runs with equal settings and simulators are equal bit for bit, also on Ray,
    where the learner then takes blocks in a fixed order. It is slower, and a lost process or a
    NaN ends the training."""


class TrackingConfig(Section):
    """Experiment trackers that get the metrics too, beside `metrics.jsonl` and TensorBoard."""

    trackers: tuple[Literal["mlflow", "wandb"], ...] = Field((), max_length=2, strict=False)
    """Trackers to use: `mlflow`, `wandb` (Weights & Biases) or both. Each needs the extra of its
    name."""
    project: str = Field("rlcar", max_length=120, pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the experiment in MLflow, and of the project in Weights & Biases."""
    mlflow_uri: str = Field("", max_length=1000)
    """Database or server of MLflow, such as `sqlite:////srv/mlflow.db` or
    `http://mlflow.example:5000`. Empty means that of MLFLOW_TRACKING_URI, or else the database
    `mlflow.db` beside the run's folder."""

    @pydantic.field_validator("mlflow_uri")
    @classmethod
    def _holds_no_password(cls, uri: str) -> str:
        if re.search(r"://[^/@]*:[^/@]*@", uri):
            raise ValueError(
                "it holds a password, which would be stored with the run and published with its "
                "versions: set MLFLOW_TRACKING_URI in its place"
            )
        return uri
