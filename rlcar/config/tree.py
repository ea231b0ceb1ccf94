"""The settings of a training as one validated, immutable tree; presets and dotted overrides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
from pydantic import Field

from rlcar.agents import ALGORITHMS, DEFAULT_ALGORITHM, AlgorithmName
from rlcar.agents.algorithm import Algorithm, Tree
from rlcar.config.presets import MODES, PRESETS, WORLDS
from rlcar.config.race import RaceConfig
from rlcar.config.sections import (
    DataConfig,
    EnvironmentConfig,
    ReplayConfig,
    TrackingConfig,
    TrainingConfig,
)
from rlcar.errors import ConfigError
from rlcar.settings.explain import explain, nearest
from rlcar.settings.files import parse_yaml, read_json, read_yaml
from rlcar.settings.section import Section

_FRAMES_WITHOUT_MEMORY = 4  # as in Mnih et al. 2015: they show how objects move


class _RunConfig(Section):
    # The sections of the algorithms and the rest of `Config` follow below, in the order of files.
    preset: str = "nano"
    """Named set of settings that this training began with."""
    world: str = "classic"
    """Named world that the settings of `race` began with."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of everything random in a training."""
    race: RaceConfig = RaceConfig()
    """The racing world."""
    environment: EnvironmentConfig = EnvironmentConfig()
    """A Gymnasium environment in place of the race."""
    data: DataConfig = DataConfig()
    """Recorded episodes to learn from in place of driving."""
    algorithm: AlgorithmName = DEFAULT_ALGORITHM
    """Algorithm that learns."""


def _algorithm_section(algorithm: Algorithm[Any]) -> tuple[type[Section], Any]:
    description = f"Settings of the algorithm `{algorithm.name}`."
    return algorithm.settings, Field(algorithm.settings(), description=description)


if TYPE_CHECKING:
    _WithAlgorithms = _RunConfig
else:  # one section for each algorithm, named after it
    _WithAlgorithms = pydantic.create_model(
        "_WithAlgorithms",
        __base__=_RunConfig,
        **{name: _algorithm_section(algorithm) for name, algorithm in ALGORITHMS.items()},
    )


class Config(_WithAlgorithms):
    """The settings of one run."""

    replay: ReplayConfig = ReplayConfig()
    """The replay buffer."""
    training: TrainingConfig = TrainingConfig()
    """Length, size and rhythm of the training."""
    tracking: TrackingConfig = TrackingConfig()
    """Experiment trackers."""

    @property
    def algorithm_settings(self) -> Section:
        """The section of the chosen algorithm."""
        settings: Section = getattr(self, self.algorithm)
        return settings

    @property
    def is_race(self) -> bool:
        """Whether the environment is the race, and not one of Gymnasium or an unknown one."""
        return not self.environment.id and self.data.has_environment

    @property
    def driven_environment(self) -> EnvironmentConfig:
        """The section `environment`, with as many stacked images as the algorithm needs."""
        if self.environment.frame_stack is not None:
            return self.environment
        remembers = ALGORITHMS[self.algorithm].has_memory(self.algorithm_settings)
        frames = 1 if remembers else _FRAMES_WITHOUT_MEMORY
        return self.environment.model_copy(update={"frame_stack": frames})

    @property
    def world_label(self) -> str:
        """The name of the environment in messages."""
        if self.is_race:
            return "the race"
        return self.environment.id or "an unknown environment"

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        is_on_policy = ALGORITHMS[self.algorithm].is_on_policy
        if self.replay.batch_length > self.training.block_length:
            raise ValueError(
                f"replay.batch_length {self.replay.batch_length} is longer than "
                f"training.block_length {self.training.block_length}: windows are cut out of blocks"
            )
        block_env_steps = self.training.block_length * self.training.cars
        if self.replay.capacity_env_steps < block_env_steps and not is_on_policy:
            raise ValueError(
                f"replay.capacity_env_steps {self.replay.capacity_env_steps} is less than a block "
                f"of training.block_length x training.cars = {block_env_steps}: raise it"
            )
        if self.training.blocks_per_call > 1 and not is_on_policy:
            raise ValueError(
                f"training.blocks_per_call {self.training.blocks_per_call} needs an on-policy "
                f"algorithm ({_on_policy_names()}), because other learners use older blocks too. "
                "Set it to 1"
            )
        _check_devices(self, is_on_policy)
        if self.is_race and self.training.cars % self.race.cars_per_track:
            raise ValueError(
                f"training.cars {self.training.cars} is not a multiple of race.cars_per_track "
                f"{self.race.cars_per_track}, so they cannot be divided among tracks"
            )
        return self


def _on_policy_names() -> str:
    return ", ".join(name for name, algorithm in ALGORITHMS.items() if algorithm.is_on_policy)


def _check_devices(config: Config, is_on_policy: bool) -> None:
    devices = config.training.learner_devices
    if devices > 1 and config.training.blocks_per_call > 1:
        raise ValueError(
            f"training.learner_devices {devices}: with training.blocks_per_call > 1 cars and "
            "learner are one program on one device; set one of the two to 1"
        )
    if config.replay.on_device and (is_on_policy or devices > 1):
        raise ValueError(
            "replay.on_device needs one device (training.learner_devices 1) and an algorithm that "
            f"learns from older blocks too; this run trains {config.algorithm} on {devices}"
        )
    name = "training.cars" if is_on_policy else "replay.batch_size"
    size = config.training.cars if is_on_policy else config.replay.batch_size
    if size % devices:
        raise ValueError(f"{name} {size} is not a multiple of training.learner_devices {devices}")


def make_config(
    preset: str | None = None,
    mode: str = "standard",
    file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    world: str | None = None,
    algorithm: str | None = None,
    environment: str | None = None,
    **settings: Any,
) -> Config:
    """Builds a config from a preset, a world, a mode, a YAML file, `a.b=c` overrides and keywords.

    Later sources override earlier ones. `environment` is the id of a Gymnasium environment. A world
    or preset that is not given is taken from overrides or the file; otherwise the world is classic,
    and the preset is that of the algorithm for this world or environment.
    Raises ConfigError, with the nearest known name, for unknown names and values out of range.
    """
    tree: Tree = {}
    from_file = read_yaml(file) if file is not None else {}
    changes = [from_file, *(parse_override(override) for override in overrides)]

    def chosen(kind: str, given: str | None, default: str | None) -> Any:
        named = (change[kind] for change in reversed(changes) if kind in change)
        return given if given is not None else next(named, default)

    algorithm = chosen("algorithm", algorithm, "")
    if algorithm != "" and not (isinstance(algorithm, str) and algorithm in ALGORITHMS):
        hint = nearest(str(algorithm), list(ALGORITHMS))
        raise ConfigError(f"unknown algorithm {algorithm!r}{hint}")
    world = chosen("world", world, "classic")
    if environment == "":
        raise ConfigError("--env is empty: name an environment of Gymnasium, or leave it out")
    if environment:
        changes.append({"environment": {"id": environment}})
    sections = [change.get("environment") for change in changes]
    ids = [section.get("id") for section in sections if isinstance(section, Mapping)]
    environment_id = next((name for name in reversed(ids) if name), None)
    preset = chosen("preset", preset, _default_preset(algorithm, world, environment_id))
    kinds = (("preset", preset, PRESETS), ("world", world, WORLDS), ("mode", mode, MODES))
    for kind, name, known in kinds:
        if not isinstance(name, str) or name not in known:
            raise ConfigError(f"unknown {kind} {name!r}{nearest(str(name), list(known))}")
        tree = merge(tree, known[name])
        if kind == "preset" and any("data" in change for change in changes):
            tree = merge(tree, ALGORITHMS[tree.get("algorithm", DEFAULT_ALGORITHM)].offline)
    for change in changes:
        tree = merge(tree, change)
    config = parse_config(merge(tree, {"preset": preset, "world": world, **settings}))
    if algorithm not in ("", config.algorithm):
        raise ConfigError(
            f"preset {preset!r} trains {config.algorithm}, not {algorithm}: leave out one of the "
            "two"
        )
    return config


def _default_preset(algorithm: str, world: Any, environment: Any) -> str:
    chosen = ALGORITHMS[algorithm or DEFAULT_ALGORITHM]
    preset = None
    if environment:
        preset = chosen.environment_presets.get(environment, chosen.gymnasium_preset)
    elif isinstance(world, str) and world.startswith("grand-prix"):
        preset = chosen.grand_prix_preset
    return preset or chosen.default_preset


def parse_config(tree: Mapping[str, Any]) -> Config:
    """Validates a whole tree; raises ConfigError with the dotted name, the value and the reason."""
    try:
        return Config.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(explain(error, Config)) from error


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a file that `dump_config` wrote, and applies overrides."""
    tree = read_json(path)
    for override in overrides:
        change = parse_override(override)
        for name in {"preset", "world"} & change.keys():
            if change[name] != tree.get(name):
                raise ConfigError(f"the {name} of a run cannot change: leave out {override}")
        tree = merge(tree, change)
    return parse_config(tree)


def dump_config(config: Config) -> str:
    """Returns the settings as JSON text."""
    return config.model_dump_json(indent=2) + "\n"


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> Tree:
    """Returns `base` with `change` applied, section by section."""
    result = dict(base)
    for name, value in change.items():
        if isinstance(value, Mapping) and isinstance(result.get(name), Mapping):
            result[name] = merge(result[name], value)
        else:
            result[name] = value
    return result


def parse_override(text: str) -> Tree:
    """Returns the tree for an override `a.b=c`; raises ConfigError if it has another form."""
    dotted, equals, value = text.partition("=")
    if not equals or not all(dotted.split(".")):
        raise ConfigError(f"override {text!r} is not of the form section.name=value")
    try:
        tree: Any = parse_yaml(value)
    except ConfigError as error:
        raise ConfigError(f"override {text[:80]!r}: the value is not YAML: {error}") from error
    for name in reversed(dotted.split(".")):
        tree = {name: tree}
    return dict(tree)


def make_race_config(world: str = "classic", **changes: Any) -> RaceConfig:
    """Returns the race settings of a world with changes applied, section by section.

    Raises ConfigError for an unknown world and for invalid changes.
    """
    if world not in WORLDS:
        raise ConfigError(f"unknown world {world!r}{nearest(world, list(WORLDS))}")
    return parse_config(merge(WORLDS[world], {"race": changes})).race
