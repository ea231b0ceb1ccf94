"""The file of a curriculum: its stages, their thresholds, and the settings of each attempt."""

import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from rlcar.config import Config, make_config
from rlcar.errors import ConfigError
from rlcar.evaluation.statistics import wilson_interval
from rlcar.settings.explain import explain, nearest
from rlcar.settings.files import read_yaml
from rlcar.settings.numbers import EnvSteps, Signed, Times, Whole
from rlcar.settings.section import Section
from rlcar.training.curriculum.machine import MOST_CONFIRMATIONS, Rules, StageRules

_SHIPPED = Path(__file__).parent / "files"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
_Name = Annotated[str, Field(pattern=_NAME, max_length=100)]


# What has a name of its own in the file, and would otherwise be set twice.
_OWN_NAMES = {"training.env_steps": "max_env_steps of a stage", "seed": "seed of the base"}
# The k-th of infinitely many confirmations may err with (1 - confidence) 6 / (pi k)^2: together
# that is 1 - confidence, as the sum of 1 / k^2 is pi^2 / 6.
_SPENT = 6.0 / math.pi**2


def _require_own_names(settings: dict[str, Any]) -> dict[str, Any]:
    for name, own in _OWN_NAMES.items():
        if name in settings:
            raise ValueError(f"{name} has a place of its own in the file: give the {own}")
    return settings


def _require_one_environment(world: str | None, env: str | None) -> None:
    if world is not None and env is not None:
        raise ValueError(f"world {world!r} and env {env!r} exclude each other: leave one out")


_Values = Annotated[
    dict[str, bool | int | float | str | None],
    Field(max_length=1000),
    pydantic.AfterValidator(_require_own_names),
]


class Base(Section):
    """What all stages have in common: the options of `rlcar train`."""

    preset: str | None = None
    """Preset, as of `rlcar train --preset`."""
    algorithm: str | None = None
    """Algorithm, as of `rlcar train --algorithm`."""
    world: str | None = None
    """World of the race, as of `rlcar train --world`."""
    env: str | None = None
    """Gymnasium environment in place of the race."""
    mode: Literal["standard", "test"] = "standard"
    """Size of the training, as of `rlcar train --mode`."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of everything random; each attempt derives its own from it."""
    set: _Values = {}
    """Settings by dotted name, as of `rlcar train --set`."""

    @pydantic.model_validator(mode="after")
    def _names_one_environment(self) -> "Base":
        _require_one_environment(self.world, self.env)
        return self


class Stage(Section):
    """One stage: what differs from the base, and when the policy has passed it."""

    name: _Name
    """Name of the stage in messages and reports."""
    world: str | None = None
    """World of the race, in place of the base's."""
    env: str | None = None
    """Gymnasium environment, in place of the base's."""
    set: _Values = {}
    """Settings by dotted name, in addition to the base's."""
    success_rate: float | None = None
    """Share of episodes that must succeed, from 0 to 1. The lower Wilson bound of fresh episodes is
    compared with it. null leaves success out."""
    mean_reward: Signed | None = None
    """Mean reward that the same episodes must reach. null leaves the reward out."""
    min_episodes: Whole = 0
    """Number of training episodes that an attempt drives before it may end early."""
    max_env_steps: EnvSteps
    """Number of env steps of an attempt."""
    attempts: int = Field(5, ge=1, le=1000)
    """Number of attempts before `after_last_attempt`."""
    after_last_attempt: Literal["regress", "stop"] = "regress"
    """What follows when the last attempt has failed: `regress` returns to the stage before, `stop`
    ends the curriculum."""

    @pydantic.field_validator("success_rate")
    @classmethod
    def _is_a_share(cls, rate: float | None) -> float | None:
        if rate is not None and rate > 1.0:
            raise ValueError(
                "a threshold over 100 % can never be passed: write a share from 0 to 1, such as "
                "0.65 for 65 %"
            )
        if rate is not None and rate < 0.0:
            raise ValueError("a share of episodes is from 0 to 1")
        return rate

    @pydantic.model_validator(mode="after")
    def _can_be_tried_and_judged(self) -> "Stage":
        _require_one_environment(self.world, self.env)
        if self.success_rate is None and self.mean_reward is None:
            raise ValueError(
                f"stage {self.name!r} has no threshold, so it would never be passed: give it a "
                "success_rate, a mean_reward or both"
            )
        return self


class Curriculum(Section):
    """A training in stages."""

    name: _Name
    """Name of the curriculum."""
    base: Base = Base()
    """What all stages have in common."""
    confidence: float = Field(0.95, ge=0.5, le=0.999_999)
    """Confidence that a policy which passes a stage really reaches its `success_rate`."""
    confirmation_episodes: int = Field(100, ge=1, le=65_536)
    """Number of fresh episodes in which a stage has to be passed, and earlier ones are checked."""
    max_regressions: Times = 5
    """Number of returns to an earlier stage after which the curriculum fails."""
    overrides: tuple[str, ...] = Field((), strict=False, max_length=1000)
    """Settings `section.name=value` that win over those of base and stages. `--set` adds to it."""
    stages: list[Stage] = Field(min_length=1, max_length=1000)
    """The stages, in their order."""

    @pydantic.model_validator(mode="after")
    def _can_be_passed(self) -> "Curriculum":
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two stages are called {name!r}")
        episodes = self.confirmation_episodes
        for stage in self.stages:
            last = stage.attempts * (MOST_CONFIRMATIONS + 1)
            best = lower_bound(episodes, episodes, self.level(last))
            if stage.success_rate is not None and stage.success_rate > best:
                raise ValueError(
                    f"stage {stage.name!r} demands a success_rate of {stage.success_rate:g}, but "
                    f"even {episodes} successes in {episodes} episodes prove no more than "
                    f"{best:.3f} in the last of up to {last} confirmations: lower it or raise "
                    "confirmation_episodes"
                )
        return self

    @property
    def rules(self) -> Rules:
        """What the state machine must know."""
        stages = (StageRules(s.attempts, s.after_last_attempt == "regress") for s in self.stages)
        return Rules(tuple(stages), self.max_regressions)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything in the file; comments, order and format do not matter."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def level(self, confirmation: int) -> float:
        """Returns the confidence that the k-th confirmation of a visit demands, from k = 1.

        Its chance to pass a policy below the threshold is (1 - confidence) 6 / (pi k)^2. All
        together therefore have at most the chance 1 - confidence, however often a stage is tried.
        """
        return 1.0 - (1.0 - self.confidence) * _SPENT / confirmation**2

    def config(self, stage: int, run: int) -> Config:
        """Returns the settings of run number `run` (from 1) of a stage; raises ConfigError."""
        base, chosen = self.base, self.stages[stage]
        values = {
            "training.env_steps": chosen.max_env_steps,
            # Runs of one curriculum must not drive the same races.
            "seed": (base.seed + 1009 * stage + run - 1) % 2**31,
        }
        settings = base.set | values | chosen.set
        return make_config(
            base.preset,
            base.mode,
            None,
            [f"{name}={json.dumps(value)}" for name, value in settings.items()]
            + list(self.overrides),
            world=None if chosen.env else (chosen.world or base.world),
            algorithm=base.algorithm,
            environment=None if chosen.world else (chosen.env or base.env),
        )


def lower_bound(successes: int, episodes: int, level: float) -> float:
    """Returns the lower Wilson bound of a success rate; `level` is its one-sided confidence."""
    return wilson_interval(successes, episodes, statistics.NormalDist().inv_cdf(level))[0]


def shipped() -> list[str]:
    """Returns the names of the curricula that come with rlcar."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def load_curriculum(
    source: str, overrides: Sequence[str] = (), seed: int | None = None
) -> Curriculum:
    """Reads a curriculum: a YAML file, or the name of one that comes with rlcar.

    Each stage inherits the settings under `defaults`. Raises ConfigError, which names the stage and
    the setting, for whatever is wrong.
    """
    path = Path(source)
    if source in shipped():
        path = _SHIPPED / f"{source}.yaml"
    elif not path.exists():
        raise ConfigError(
            f"there is no curriculum {source!r}{nearest(source, shipped())}: give a YAML file, or "
            f"one of {', '.join(shipped())}"
        )
    tree = read_yaml(path)
    defaults = tree.pop("defaults", None) or {}
    if not isinstance(defaults, dict):
        raise ConfigError(f"{path}: defaults holds a {type(defaults).__name__}, not settings")
    stages = tree.get("stages")
    if isinstance(stages, list):
        tree["stages"] = [_with_defaults(defaults, stage) for stage in stages]
    if not stages:
        raise ConfigError(f"{path} names no stages: list at least one under stages")
    return parse_curriculum(tree, str(path), overrides, seed)


def parse_curriculum(
    tree: dict[str, Any], where: str, overrides: Sequence[str] = (), seed: int | None = None
) -> Curriculum:
    """Validates the tree of a curriculum; raises ConfigError as `load_curriculum` does."""
    try:
        curriculum = Curriculum.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Curriculum)}") from error
    base = curriculum.base if seed is None else curriculum.base.model_copy(update={"seed": seed})
    return curriculum.model_copy(
        update={"overrides": (*curriculum.overrides, *overrides), "base": base}
    )


def _with_defaults(defaults: dict[str, Any], stage: Any) -> Any:
    if not isinstance(stage, dict):
        return stage
    together = {**defaults, **stage}
    for own, other in (("world", "env"), ("env", "world")):
        if stage.get(own) is not None and stage.get(other) is None:
            together[other] = None  # the stage's own choice wins
    first, second = defaults.get("set"), stage.get("set")
    if isinstance(first, dict) and isinstance(second, dict):
        together["set"] = {**first, **second}
    return together
