"""Every learning knob in one validated, immutable tree; dotted overrides."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rlcar.errors import ConfigError
from rlcar.presets import MODES, PRESETS, WORLDS, Tree


class Section(pydantic.BaseModel):
    """A group of settings: frozen, unknown names refused, NaN and infinities refused."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, strict=True, validate_default=True
    )


Probability = pydantic.confloat(ge=0.0, le=1.0)


class Range(Section):
    """A number that each car draws anew for each episode, evenly from low to high."""

    low: NonNegativeFloat
    high: NonNegativeFloat

    @pydantic.model_validator(mode="after")
    def _low_is_lower(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class TrackConfig(Section):
    """Shape of the closed road; the defaults are the `classic` world."""

    points: int = Field(100, ge=16, le=400)
    base_radius_px: PositiveFloat = 210.0
    noise_amplitude: float = Field(0.3, ge=0.0, lt=1.0)
    noise_harmonics: int = Field(4, ge=1, le=16)  # more make sharper bends
    half_width_px: float = Field(40.0, ge=10.0, le=60.0)
    # Each track draws its own half-width down to this one; None: all are as wide.
    half_width_low_px: float | None = Field(None, ge=10.0, le=60.0)
    obstacles: int = Field(5, ge=0, le=16)
    obstacle_radius_px: PositiveFloat = 10.0
    obstacle_placement: Literal["infield", "road"] = "infield"
    obstacle_gap_px: PositiveFloat = 30.0  # of road that every obstacle leaves on one side

    @pydantic.model_validator(mode="after")
    def _widths_fit(self) -> "TrackConfig":
        low_px = self.half_width_low_px
        if low_px is not None and low_px > self.half_width_px:
            raise ValueError(
                f"half_width_low_px {low_px} is above half_width_px {self.half_width_px}"
            )
        narrowest_px = self.half_width_px if low_px is None else low_px
        on_road = self.obstacle_placement == "road" and self.obstacles > 0
        if on_road and self.obstacle_gap_px > 2 * narrowest_px - self.obstacle_radius_px:
            raise ValueError(
                f"an obstacle of radius {self.obstacle_radius_px} px leaves no gap of "
                f"{self.obstacle_gap_px} px on a road of half-width {narrowest_px} px: use a "
                "smaller obstacle_radius_px or obstacle_gap_px, or a wider road"
            )
        return self


class VehicleConfig(Section):
    """How a car answers; the defaults are the `classic` world."""

    # classic turns on the spot; single_track steers by its front axle and has a grip limit.
    model: Literal["classic", "single_track"] = "classic"
    top_speed_px_per_step: float = Field(5.0, ge=1.0, le=8.0)
    # The most speed x yaw rate of a single-track car; past it, it understeers.
    grip_px_per_step2: Range = Range(low=0.5, high=0.5)
    delay_steps: Range = Range(low=0.0, high=0.0)  # whole steps from the action to its effect

    @pydantic.model_validator(mode="after")
    def _is_drivable(self) -> "VehicleConfig":
        if self.model == "classic" and self.top_speed_px_per_step != 5.0:
            raise ValueError("the classic car's top speed is 5 px/step; single_track may have more")
        if not 0.05 <= self.grip_px_per_step2.low <= self.grip_px_per_step2.high <= 0.7:
            raise ValueError("grip_px_per_step2 lies in 0.05..0.7")
        if self.delay_steps.high > 3 or self.delay_steps.low % 1 or self.delay_steps.high % 1:
            raise ValueError("delay_steps are whole numbers in 0..3")
        return self


class SensorConfig(Section):
    """What is wrong with the readings of the rays; nothing, by default."""

    noise_px: Range = Range(low=0.0, high=0.0)  # half the width of an even distribution
    dropout: Range = Range(low=0.0, high=0.0)  # probability that a ray reads "nothing in range"

    @pydantic.model_validator(mode="after")
    def _are_small(self) -> "SensorConfig":
        if self.noise_px.high > 50 or self.dropout.high > 0.9:
            raise ValueError("noise_px lies in 0..50 and dropout in 0..0.9")
        return self


class RivalConfig(Section):
    """A second car that drives on as if it were alone: a moving obstacle."""

    radius_px: PositiveFloat = Field(8.0, le=30.0)
    pace_px_per_step: float = Field(2.0, gt=0.0, le=5.0)  # of the scripted one
    head_start_laps: Range = Range(low=0.2, high=0.8)

    @pydantic.model_validator(mode="after")
    def _starts_ahead(self) -> "RivalConfig":
        if not 0.05 <= self.head_start_laps.low <= self.head_start_laps.high <= 0.95:
            raise ValueError("head_start_laps lies in 0.05..0.95: the rival may not stand on you")
        return self


class RaceConfig(Section):
    """Rules of the race and what it pays."""

    track: TrackConfig = TrackConfig()
    vehicle: VehicleConfig = VehicleConfig()
    sensors: SensorConfig = SensorConfig()
    rival: RivalConfig | None = None
    reward: Literal["progress", "documented"] = "progress"
    laps: int = Field(1, ge=1, le=1000)
    time_limit_steps: int = Field(1000, ge=1, le=1_000_000)


class WorldModelConfig(Section):
    """Recurrent state-space model; names after Hafner et al. 2025, Table of model sizes."""

    recurrent_units: PositiveInt = 256  # D, the deterministic state
    recurrent_blocks: PositiveInt = 8  # block-diagonal GRU
    hidden_units: PositiveInt = 64  # inside the dynamics
    latent_groups: PositiveInt = 8  # S
    latent_classes: PositiveInt = 8  # K
    units: PositiveInt = 64  # encoder, decoder, reward and continue heads
    encoder_layers: PositiveInt = 2
    decoder_layers: PositiveInt = 2
    observation_scale: PositiveFloat = 10.0  # before symlog; ours come in [0, 1]
    # Weight of the squared error against the KL: too little, and the latents keep too blurred a
    # picture of the sensors to foresee a crash.
    reconstruction_scale: PositiveFloat = 100.0
    unimix: float = Field(0.01, gt=0.0, le=1.0)  # without it a KL would take the log of 0
    free_nats: NonNegativeFloat = 1.0
    dynamics_scale: NonNegativeFloat = 1.0
    representation_scale: NonNegativeFloat = 0.1


class ActorCriticConfig(Section):
    """Learning in imagination."""

    units: PositiveInt = 64
    layers: PositiveInt = 2
    imagination_length: PositiveInt = 15
    imagination_last: PositiveInt = 16  # dreams start from the last so many steps of a window
    discount_horizon: float = Field(333.0, gt=1.0)  # discount = 1 - 1 / horizon
    lambda_: Probability = 0.95  # type: ignore[valid-type]
    entropy_scale: NonNegativeFloat = 3e-4
    slow_value_rate: Probability = 0.02  # type: ignore[valid-type]
    return_normaliser_rate: Probability = 0.01  # type: ignore[valid-type]
    replay_value_scale: NonNegativeFloat = 0.3
    policy_average_rate: float = Field(0.02, gt=0.0, le=1.0)  # 1 acts with the newest weights


class OptimizerConfig(Section):
    """LaProp with adaptive gradient clipping."""

    learning_rate: PositiveFloat = 4e-5
    warmup_updates: NonNegativeInt = 1000
    clip_ratio: PositiveFloat = 0.3
    epsilon: PositiveFloat = 1e-20
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.999, ge=0.0, lt=1.0)


class DreamerConfig(Section):
    """The world-model agent."""

    world_model: WorldModelConfig = WorldModelConfig()
    actor_critic: ActorCriticConfig = ActorCriticConfig()
    optimizer: OptimizerConfig = OptimizerConfig()


class DocumentedConfig(Section):
    """The plain networks of the first product: no recurrence, no distributions."""

    latent_units: PositiveInt = 32
    hidden_units: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-3
    imagination_length: PositiveInt = 15
    discount: float = Field(0.97, gt=0.0, lt=1.0)
    exploration_noise: PositiveFloat = 0.2
    exploration_start: Probability = 1.0  # type: ignore[valid-type]
    exploration_end: Probability = 0.1  # type: ignore[valid-type]
    exploration_decay: float = Field(0.999, gt=0.0, lt=1.0)  # per train step


class ReplayConfig(Section):
    """Memory of past driving and how often it is used."""

    capacity_env_steps: PositiveInt = 500_000
    min_env_steps: PositiveInt = 1024  # before the first train step
    batch_size: PositiveInt = 16  # B
    batch_length: int = Field(32, ge=2)  # T
    samples_per_insert: PositiveFloat = 16.0  # replayed steps for each new env step


class TrainingConfig(Section):
    """How long, how wide, and when to look."""

    env_steps: PositiveInt = 60_000
    cars: PositiveInt = 16  # in each simulator
    block_length: PositiveInt = 64  # T of a Trajectory
    evaluate_every_env_steps: PositiveInt = 2048
    evaluate_set: Literal["train", "validation"] = "validation"
    log_every_s: PositiveFloat = 1.0
    checkpoint_every_s: PositiveFloat = 60.0
    checkpoints_kept: PositiveInt = 3


class Config(Section):
    """One run."""

    preset: str = "nano"
    world: str = "classic"  # what `race` began as
    seed: int = Field(0, ge=0, lt=2**31)
    race: RaceConfig = RaceConfig()
    algorithm: Literal["dreamer", "documented"] = "dreamer"
    dreamer: DreamerConfig = DreamerConfig()
    documented: DocumentedConfig = DocumentedConfig()
    replay: ReplayConfig = ReplayConfig()
    training: TrainingConfig = TrainingConfig()

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        if self.replay.batch_length > self.training.block_length:
            raise ValueError(
                f"replay.batch_length {self.replay.batch_length} is longer than "
                f"training.block_length {self.training.block_length}: windows are cut out of blocks"
            )
        world_model = self.dreamer.world_model
        if world_model.recurrent_units % world_model.recurrent_blocks:
            raise ValueError(
                f"dreamer.world_model.recurrent_units {world_model.recurrent_units} is not a "
                f"multiple of recurrent_blocks {world_model.recurrent_blocks}"
            )
        return self


def nearest(name: str, known: Sequence[str]) -> str:
    """Returns `; did you mean 'x'?`, or the list of what there is when nothing is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(sorted(known))}"


def make_config(
    preset: str | None = None,
    mode: str = "standard",
    file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    world: str | None = None,
    **settings: Any,
) -> Config:
    """Builds a config from preset, world, mode, a YAML file, `a.b=c` overrides, keywords.

    Later ones win. A preset or world that is not given is the file's, else nano and classic.
    Raises ConfigError, naming the nearest known name, for anything unknown or out of range.
    """
    tree: Tree = {}
    from_file = _read_yaml(file) if file is not None else {}
    changes = [from_file, *(_parse_override(override) for override in overrides)]

    def chosen(kind: str, given: str | None, default: str) -> Any:
        named = (one[kind] for one in reversed(changes) if kind in one)
        return given if given is not None else next(named, default)

    preset, world = chosen("preset", preset, "nano"), chosen("world", world, "classic")
    kinds = (("preset", preset, PRESETS), ("world", world, WORLDS), ("mode", mode, MODES))
    for kind, name, known in kinds:
        if not isinstance(name, str) or name not in known:
            raise ConfigError(f"unknown {kind} {name!r}{nearest(str(name), list(known))}")
        tree = merge(tree, known[name])
    for change in changes:
        tree = merge(tree, change)
    return parse_config(merge(tree, {"preset": preset, "world": world, **settings}))


def parse_config(tree: Mapping[str, Any]) -> Config:
    """Validates a whole tree; raises ConfigError with the dotted name, the value and the reason."""
    try:
        return Config.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError("; ".join(_explain(one) for one in error.errors())) from error


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads what `dump_config` wrote, with overrides laid over it."""
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the config {path}: {error}") from error
    for override in overrides:
        tree = merge(tree, _parse_override(override))
    return parse_config(tree)


def dump_config(config: Config) -> str:
    """The resolved tree as JSON text."""
    return config.model_dump_json(indent=2) + "\n"


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> Tree:
    """Returns `base` with `change` laid over it, section by section."""
    result = dict(base)
    for name, value in change.items():
        if isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = merge(result[name], value)
        else:
            result[name] = value
    return result


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number: PyYAML follows YAML 1.1, which asks for a point and a sign."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _parse_override(text: str) -> Tree:
    dotted, equals, value = text.partition("=")
    if not equals or not all(dotted.split(".")):
        raise ConfigError(f"override {text!r} is not of the form section.name=value")
    try:
        tree: Any = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {text!r}: the value is not YAML: {error}") from error
    for name in reversed(dotted.split(".")):
        tree = {name: tree}
    return dict(tree)


def _read_yaml(path: Path) -> Tree:
    try:
        tree = yaml.load(path.read_text(), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the config file {path}: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"the config file {path} holds a {type(tree).__name__}, not settings")
    return tree


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    dotted = ".".join(location)
    if error["type"] == "extra_forbidden":
        section: Any = Config
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        return f"unknown setting {dotted!r}{nearest(location[-1], list(section.model_fields))}"
    value = error["input"]
    said = "" if isinstance(value, Mapping) else f" = {value!r}"
    reason = error["msg"].removeprefix("Value error, ")
    return f"{dotted}{said}: {reason}" if dotted else reason


def make_race_config(world: str = "classic", **changes: Any) -> RaceConfig:
    """Returns a world's race with changes laid over it, section by section.

    Raises ConfigError for an unknown world and whatever `parse_config` refuses.
    """
    if world not in WORLDS:
        raise ConfigError(f"unknown world {world!r}{nearest(world, list(WORLDS))}")
    return parse_config(merge(WORLDS[world], {"race": changes})).race
