"""The file of a rollout, in the vocabulary of Argo Rollouts; unknown keys are refused."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import BeforeValidator, Field
from pydantic.alias_generators import to_camel

from rlcar.errors import ConfigError
from rlcar.gates.settings import Gates
from rlcar.settings.explain import explain
from rlcar.settings.files import read_yaml

MAX_STEPS = 100
MAX_PAIRS = 2500  # servers keep no more laps of one version
MAX_MEASUREMENTS = 1000  # of one metric; each is an entry of the journal
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_CONDITION = re.compile(r"\s*(<=|>=|<|>)\s*([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*")

Value = Literal[
    "errorShare",
    "nonFiniteShare",
    "lateShare",
    "fallbackShare",
    "latencyRatio",
    "actionDifferenceShare",
    "signFlipShare",
    "saturationShare",
    "jerkRatio",
    "rewardDifference",
    "successDifference",
]
_OLDER_NAMES = {"steeringDifferenceShare": "actionDifferenceShare"}  # of journals and files
Kpi = Literal["reward", "success"]


def _seconds(value: Any) -> Any:
    """Reads `10m` as 600 seconds; other values are left to the validation."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("a duration is a number with a unit: 500ms, 30s, 10m, 2h or 1d")
        return float(match[1]) * _UNITS_S[match[2]]
    return value


def _present_name(value: Any) -> Any:
    """Returns the present name of a value that an older rlcar knew by another one."""
    return _OLDER_NAMES.get(value, value) if isinstance(value, str) else value


class Condition(NamedTuple):
    """A comparison with a number, such as `<= 0.01`."""

    operator: str
    limit: float

    def holds(self, value: float) -> bool:
        """Whether a measured value fulfils the condition."""
        if self.operator.startswith("<"):
            return value < self.limit or (self.operator == "<=" and value == self.limit)
        return value > self.limit or (self.operator == ">=" and value == self.limit)


def parse_condition(text: str) -> Condition:
    """Reads `<= 0.01`; raises ValueError for anything else."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError("a condition compares with a number: '<= 0.01', '> 1.5'")
    return Condition(match[1], float(match[2]))


def _check_condition(text: str) -> str:
    parse_condition(text)
    return text


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0.0, le=1e8)]
Interval = Annotated[float, BeforeValidator(_seconds), Field(ge=0.05, le=1e8)]
Weight = Annotated[float, Field(ge=0.0, le=100.0)]
Limit = Annotated[int, Field(ge=0, le=MAX_MEASUREMENTS)]
ConditionText = Annotated[str, Field(max_length=60), pydantic.AfterValidator(_check_condition)]
Query = Annotated[str, Field(min_length=1, max_length=2000)]
Significance = Annotated[float, Field(ge=1e-9, le=0.5)]


class RolloutSection(pydantic.BaseModel):
    """A part of a rollout's file; its keys are in camel case, as in Kubernetes."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        strict=True,
        validate_default=True,
        alias_generator=to_camel,
    )


class Pause(RolloutSection):
    """Waits for a duration or, without one, until a person resumes the rollout."""

    duration: Duration | None = None


class Shadow(RolloutSection):
    """Lets the candidate act, unseen, on the observations of some sessions.

    The sessions stay shadowed until the next `setWeight` or `shadow`, so a following `analysis` can
    measure them.
    """

    weight: Weight = 100.0
    """Percentage of the sessions that are shadowed."""
    duration: Duration = 0.0
    """Time before the next step."""


class AnalysisMetric(RolloutSection):
    """One quantity that is measured repeatedly and compared with its limits."""

    name: str = Field(min_length=1, max_length=60)
    """Name of the metric in the journal."""
    value: Annotated[Value, BeforeValidator(_present_name)] | None = None
    """Quantity to measure, over everything since the rollout began."""
    query: Query | None = None
    """Query to Prometheus in place of `value`; `{{candidate}}` and `{{stable}}` in it stand for the
    numbers of the versions. Its result must be one number."""
    success_condition: ConditionText | None = None
    """A measurement that fulfils it is a success."""
    failure_condition: ConditionText | None = None
    """A measurement that fulfils it is a failure. One that fulfils neither of two conditions is
    inconclusive."""
    initial_delay: Duration = 0.0
    """Time before the first measurement."""
    interval: Interval = 10.0
    """Time between two measurements."""
    count: int = Field(1, ge=1, le=MAX_MEASUREMENTS)
    """Number of measurements with data. In a dry run those without data count too."""
    failure_limit: Limit = 0
    """Number of failures that are tolerated; one more aborts the rollout."""
    consecutive_error_limit: Limit = 4
    """Number of measurements in a row that may lack data; one more aborts the rollout."""
    inconclusive_limit: Limit = 0
    """Number of inconclusive measurements that are tolerated; one more stops the rollout until a
    person decides."""
    dry_run: bool = False
    """Whether the metric is recorded without any effect on the rollout."""

    @property
    def quantity(self) -> str:
        """What the metric measures, for people."""
        return self.value or "its query"

    @pydantic.model_validator(mode="after")
    def _measures_one_thing(self) -> "AnalysisMetric":
        if (self.value is None) == (self.query is None):
            raise ValueError(f"metric {self.name!r} needs either a value or a query")
        return self

    @pydantic.model_validator(mode="after")
    def _has_a_condition(self) -> "AnalysisMetric":
        if self.success_condition is None and self.failure_condition is None:
            raise ValueError(
                f"metric {self.name!r} has no limit: give successCondition or failureCondition"
            )
        return self


class Analysis(RolloutSection):
    """Measures until each metric has its number of measurements with data."""

    metrics: list[AnalysisMetric] = Field(min_length=1, max_length=20)

    @pydantic.model_validator(mode="after")
    def _names_differ(self) -> "Analysis":
        names = [metric.name for metric in self.metrics]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two metrics of an analysis are called {name!r}")
        return self


class Winner(RolloutSection):
    """Waits until a sequential test finds which of the two versions is better."""

    kpi: Kpi = "reward"
    """What the cars report with `POST /v1/outcome`."""
    significance: Significance = 0.05
    """Largest probability that two equal versions differ according to the test."""
    max_pairs: int = Field(500, ge=2, le=MAX_PAIRS)
    """Number of laps of the candidate without a result after which a person decides."""


class Step(RolloutSection):
    """One step of a rollout: exactly one of its keys."""

    set_weight: Weight | None = None
    """Percentage of the sessions that the candidate drives from now on."""
    pause: Pause | None = None
    """Waits for a duration, or with `{}` for a person."""
    analysis: Analysis | None = None
    """Measures, and aborts if a limit is exceeded."""
    shadow: Shadow | None = None
    """Lets the candidate act unseen."""
    winner: Winner | None = None
    """Waits until one version is better."""

    @pydantic.model_validator(mode="after")
    def _is_one_thing(self) -> "Step":
        kinds = [to_camel(name) for name in Step.model_fields if getattr(self, name) is not None]
        if len(kinds) != 1:
            found = " and ".join(kinds) if kinds else "nothing"
            raise ValueError(
                f"a step is one of setWeight, pause, analysis, shadow and winner, not {found}"
            )
        return self


class Canary(RolloutSection):
    """The candidate gets a growing share of the sessions."""

    steps: list[Step] = Field(min_length=1, max_length=MAX_STEPS)


class BlueGreen(RolloutSection):
    """The candidate takes over all sessions in one step, with an instant way back."""

    auto_promotion_enabled: bool = True
    """Whether the switch happens by itself; otherwise a person resumes the rollout first."""
    watch: Duration = 0.0
    """Time after the switch before the candidate becomes the stable version."""


class Ab(RolloutSection):
    """Two versions with a fixed share of the sessions each, until one is better."""

    weight: Weight = 50.0
    """Percentage of the sessions that the candidate drives."""
    kpi: Kpi = "reward"
    """What the cars report with `POST /v1/outcome`."""
    significance: Significance = 0.05
    """Largest probability that two equal versions differ according to the test."""
    max_pairs: int = Field(500, ge=2, le=MAX_PAIRS)
    """Number of laps of the candidate without a result after which a person decides."""


class ShadowOnly(RolloutSection):
    """The candidate acts unseen, and is never promoted by this rollout."""

    weight: Weight = 100.0
    """Percentage of the sessions that are shadowed."""
    duration: Duration = 600.0
    """Time until the rollout ends."""
    analysis: Analysis | None = None
    """Metrics to measure afterwards."""


class Strategy(RolloutSection):
    """The kind of a rollout: exactly one of its keys."""

    canary: Canary | None = None
    """The candidate gets a growing share of the sessions."""
    blue_green: BlueGreen | None = None
    """The candidate takes over all sessions at once."""
    ab: Ab | None = None
    """Two versions are compared."""
    shadow: ShadowOnly | None = None
    """The candidate acts unseen."""

    @pydantic.model_validator(mode="after")
    def _is_one_thing(self) -> "Strategy":
        kinds = [
            to_camel(name) for name in Strategy.model_fields if getattr(self, name) is not None
        ]
        if len(kinds) != 1:
            found = " and ".join(kinds) if kinds else "nothing"
            raise ValueError(f"a strategy is one of canary, blueGreen, ab and shadow, not {found}")
        return self


class AutomaticRollback(RolloutSection):
    """What aborts a rollout at any time, whatever its steps say."""

    enabled: bool = True
    """Whether faults of the candidate abort the rollout."""
    usual_share: float = Field(0.001, ge=1e-6, le=0.2)
    """Share of faulty answers that is normal."""
    faulty_share: float = Field(0.01, ge=1e-5, le=0.9)
    """Share of faulty answers that must be detected."""
    false_alarm: Significance = 1e-4
    """The test of faults raises an alarm at a likelihood ratio of 1 / falseAlarm."""
    latency_ratio: float = Field(1.7, ge=1.05, le=100.0)
    """An answer counts as slow above this multiple of the stable version's median latency."""
    kpi_significance: Significance = 5e-3
    """Largest probability that a KPI of an equally good candidate aborts the rollout."""

    @pydantic.model_validator(mode="after")
    def _shares_are_in_order(self) -> "AutomaticRollback":
        if self.faulty_share <= self.usual_share:
            raise ValueError(
                f"faultyShare {self.faulty_share:g} must be above usualShare {self.usual_share:g}"
            )
        return self


class RolloutSpecification(RolloutSection):
    """The whole file of a rollout."""

    strategy: Strategy
    """How the candidate takes over."""
    rollback: AutomaticRollback = AutomaticRollback()
    """What aborts the rollout at any time."""
    gates: Gates | None = None
    """What the candidate must pass before it gets any traffic."""

    @property
    def promotes(self) -> bool:
        """Whether the candidate becomes the stable version at the end."""
        return self.strategy.shadow is None

    def steps(self) -> list[Step]:
        """Returns the steps; those of the strategies other than canary follow from their keys."""
        strategy = self.strategy
        if strategy.canary is not None:
            return strategy.canary.steps
        if strategy.blue_green is not None:
            green = strategy.blue_green
            wait = [] if green.auto_promotion_enabled else [Step(pause=Pause())]
            watch = [Step(pause=Pause(duration=green.watch))] if green.watch else []
            return [*wait, Step(setWeight=100.0), *watch]
        if strategy.ab is not None:
            one = strategy.ab
            test = Winner(kpi=one.kpi, significance=one.significance, maxPairs=one.max_pairs)
            return [Step(setWeight=one.weight), Step(winner=test)]
        assert strategy.shadow is not None
        seen = strategy.shadow
        shadow = Step(shadow=Shadow(weight=seen.weight, duration=seen.duration))
        return [shadow] if seen.analysis is None else [shadow, Step(analysis=seen.analysis)]

    def tree(self) -> dict[str, Any]:
        """Returns the specification as it stands in the journal, with its defaults."""
        return self.model_dump(by_alias=True, exclude_none=True)


def parse_specification(tree: dict[str, Any]) -> RolloutSpecification:
    """Validates a rollout; raises ConfigError that names each wrong key and its nearest name."""
    try:
        return RolloutSpecification.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(f"the rollout: {explain(error, RolloutSpecification)}") from error


def read_specification(path: Path) -> RolloutSpecification:
    """Reads a rollout's YAML file."""
    try:
        return parse_specification(read_yaml(path))
    except ConfigError as error:
        if str(path) in str(error):
            raise
        raise ConfigError(f"{path}: {error}") from error


def default_specification() -> RolloutSpecification:
    """Returns the rollout without a file: 10 %, 50 % and 100 %, ten minutes each."""
    pause: dict[str, Any] = {"pause": {"duration": "10m"}}
    steps = [{"setWeight": 10.0}, pause, {"setWeight": 50.0}, pause]
    return parse_specification({"strategy": {"canary": {"steps": steps}}})
