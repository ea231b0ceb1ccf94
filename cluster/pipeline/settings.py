"""The file of a pipeline; its keys are in camel case, as in the file of a rollout."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic.alias_generators import to_camel

from rlcar.agents import ALGORITHMS
from rlcar.config import Config, parse_override
from rlcar.errors import ConfigError
from rlcar.gates.settings import DataGate, SimulationGate
from rlcar.settings.explain import explain, nearest, problems
from rlcar.settings.files import read_yaml
from serve.delivery.specification import (
    Duration,
    Interval,
    RolloutSection,
    RolloutSpecification,
    parse_specification,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_FEWEST = 50  # episodes, as `rlcar.offline.held_out` requires
_TEXT = Annotated[str, Field(min_length=1, max_length=1000)]
_DURATION: pydantic.TypeAdapter[float] = pydantic.TypeAdapter(Interval)
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


def _check_algorithm(name: str) -> str:
    """Raises ValueError, with the nearest name, unless an algorithm learns from recorded data."""
    able = [each for each, algorithm in ALGORITHMS.items() if algorithm.learns_offline]
    if name not in able:
        raise ValueError(f"no algorithm that learns from recorded data{nearest(name, able)}")
    return name


def _check_override(text: str) -> str:
    """Raises ValueError unless a text sets one setting of a training to a value of its kind.

    Rules about several settings are left to the training, which knows the others.
    """
    try:
        Config.model_validate(parse_override(text))
    except ConfigError as error:
        raise ValueError(str(error)) from None
    except pydantic.ValidationError as error:
        found = problems(error, Config)
        wrong = [one for one in found if one.known_names or not isinstance(one.value, Mapping)]
        if wrong:
            raise ValueError("; ".join(one.sentence() for one in wrong)) from None
    return text


_Algorithm = Annotated[str, pydantic.AfterValidator(_check_algorithm)]
_Override = Annotated[_TEXT, pydantic.AfterValidator(_check_override)]


class Collect(RolloutSection):
    """Which recorded episodes a run learns from."""

    recordings: _TEXT
    """Folder into which the servers record (`rlcar serve --record FOLDER`)."""
    minimum_episodes: int = Field(100, ge=1, le=10**9)
    """A run begins when there are so many new episodes."""
    minimum_transitions: int = Field(20_000, ge=1, le=10**12)
    """A run begins when the new episodes have about so many transitions."""
    history: int = Field(0, ge=0, le=1000)
    """Number of earlier runs whose episodes are learned from as well."""


class Offline(RolloutSection):
    """Learns from the recorded episodes alone, as `rlcar offline` does."""

    algorithms: list[_Algorithm] = Field([], max_length=20)
    """Algorithms to try (default: all that fit the data)."""
    mode: Literal["standard", "test"] = "standard"
    """Size of each training."""
    updates: int = Field(16_000, ge=100, le=10_000_000)
    """Updates of the value functions of each estimate."""
    settings: list[_Override] = Field([], max_length=200)
    """Settings that differ, such as `training.env_steps=100000`."""
    seed: Seed = 0
    """Seed of all random numbers."""


class FineTune(RolloutSection):
    """Continues the training of the stable version by driving in its simulated world."""

    runs: _TEXT = "runs"
    """Folder with the run of the stable version; the runs of this pipeline are found as well."""
    settings: list[_Override] = Field([], max_length=200)
    """Settings that differ, such as `training.env_steps=100000`."""
    seed: Seed | None = None
    """Seed of all random numbers (default: that of the run)."""


class Train(RolloutSection):
    """How a candidate is made: exactly one of its keys."""

    offline: Offline | None = None
    """Learns from the recorded episodes."""
    fine_tune: FineTune | None = None
    """Continues the training of the stable version by driving."""

    @pydantic.model_validator(mode="after")
    def _is_one_thing(self) -> "Train":
        kinds = [to_camel(name) for name in Train.model_fields if getattr(self, name) is not None]
        if len(kinds) != 1:
            found = " and ".join(kinds) if kinds else "nothing"
            raise ValueError(f"a candidate comes from one of offline and fineTune, not {found}")
        return self


class CandidateGates(RolloutSection):
    """What a candidate must pass before it is published: one or both of its keys."""

    simulation: SimulationGate | None = None
    """Paired laps in simulation."""
    off_policy_evaluation: DataGate | None = None
    """Estimates from recorded traffic; without `data`, from a fifth of the new episodes, which the
    candidate does not learn from."""

    @pydantic.model_validator(mode="after")
    def _is_complete(self) -> "CandidateGates":
        if self.simulation is None and self.off_policy_evaluation is None:
            raise ValueError("gates need simulation, offPolicyEvaluation or both")
        return self


def _default_rollout() -> RolloutSpecification:
    """Shadows for ten minutes, then gives 10 % and 50 % of the sessions for ten minutes each."""
    pause: dict[str, Any] = {"pause": {"duration": "10m"}}
    shadow: dict[str, Any] = {"shadow": {"weight": 100.0, "duration": "10m"}}
    steps = [shadow, {"setWeight": 10.0}, pause, {"setWeight": 50.0}, pause]
    return parse_specification({"strategy": {"canary": {"steps": steps}}})


class PipelineSettings(RolloutSection):
    """The whole file of a pipeline."""

    name: str = Field("", pattern=rf"^({_NAME.pattern})?$")
    """Name in versions and folders (default: that of the file)."""
    folder: str = Field("", max_length=1000)
    """Folder of journals, data and trainings (default: `pipelines/` and the name)."""
    registry: str = Field("", max_length=1000)
    """Model registry (default: the option `--registry`)."""
    alias: str = Field("champion", min_length=1, max_length=60)
    """Alias that the servers follow, whose version is to be replaced."""
    collect: Collect
    """Which recorded episodes a run learns from."""
    train: Train = Train(offline=Offline())
    """How a candidate is made."""
    gates: CandidateGates = CandidateGates(simulation=SimulationGate())
    """What a candidate must pass before it is published."""
    rollout: RolloutSpecification = Field(default_factory=_default_rollout)
    """How the candidate takes over (default: a shadow, then 10 % and 50 %, ten minutes each)."""
    rollout_timeout: Duration = 86_400.0
    """Time after which a rollout that has not ended is aborted, such as one without traffic."""

    @pydantic.model_validator(mode="after")
    def _has_enough_to_set_apart(self) -> "PipelineSettings":
        gate = self.gates.off_policy_evaluation
        if gate is not None and not gate.data and self.collect.minimum_episodes < _FEWEST:
            raise ValueError(
                "gates.offPolicyEvaluation without data sets a fifth of the new episodes apart: "
                f"collect.minimumEpisodes {self.collect.minimum_episodes} must be at least "
                f"{_FEWEST}"
            )
        return self

    @pydantic.field_validator("rollout")
    @classmethod
    def _has_no_gates(cls, rollout: RolloutSpecification) -> RolloutSpecification:
        if rollout.gates is not None:
            raise ValueError("a pipeline runs the gates itself: move them out of rollout")
        return rollout

    def tree(self) -> dict[str, Any]:
        """Returns the settings as a run's plan holds them, with their defaults."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


def parse_settings(tree: Any, name: str) -> PipelineSettings:
    """Validates a pipeline; raises ConfigError that names each wrong key and its nearest name.

    `name` is the pipeline's name unless the tree has one.
    """
    try:
        settings = PipelineSettings.model_validate(tree)
        if not settings.name:
            if _NAME.fullmatch(name) is None:
                raise ConfigError(
                    f"the pipeline cannot be called {name!r}: give it a name of letters, digits, "
                    "- and _ with the key name"
                )
            settings = settings.model_copy(update={"name": name})
    except pydantic.ValidationError as error:
        raise ConfigError(f"the pipeline: {explain(error, PipelineSettings)}") from error
    if not settings.folder:
        settings = settings.model_copy(update={"folder": f"pipelines/{settings.name}"})
    return settings


def read_settings(path: Path) -> PipelineSettings:
    """Reads a pipeline's YAML file."""
    try:
        return parse_settings(read_yaml(path), path.stem)
    except ConfigError as error:
        if str(path) in str(error):
            raise
        raise ConfigError(f"{path}: {error}") from error


def parse_duration(name: str, text: str) -> float:
    """Reads `10m` as 600 seconds; raises ConfigError, which names the option, for another text."""
    try:
        seconds = _DURATION.validate_python(text)
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{name} {text!r}: {reason}") from None
    return seconds
