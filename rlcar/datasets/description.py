"""The contents of `dataset.json`: what a data set holds, where it is from, and its parts."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pydantic
from pydantic import Field

from rlcar.config import Config, EnvironmentConfig, make_race_config
from rlcar.config.race import RaceConfig
from rlcar.config.schema import Entry, entries_of_race, entries_of_spec
from rlcar.errors import DatasetError, reason_of
from rlcar.settings.explain import explain
from rlcar.settings.numbers import Float32, Size, Whole
from rlcar.settings.section import Section
from rlcar.system import durable
from rlcar.system.regular_file import read_regular
from rlcar.types import Spec

DESCRIPTION = "dataset.json"
FORMAT_VERSION: Literal[1] = 1
_LARGEST_BYTES = 1 << 28

Count = Annotated[int, Field(ge=1, lt=2**63)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Difference(NamedTuple):
    """A setting in which two worlds differ."""

    setting: str  # its dotted name
    first: Any
    second: Any


class World(Section):
    """The environment of the recording: a race, a Gymnasium environment, or only a name."""

    race: RaceConfig | None = None
    environment: EnvironmentConfig | None = None
    name: str = ""

    @classmethod
    def of_config(cls, config: Config) -> "World":
        """Returns the world in which a config trains; a known race has its name."""
        if config.environment.id:
            return cls(environment=config.environment)
        is_known = make_race_config(config.world) == config.race
        return cls(race=config.race, name=config.world if is_known else "")

    @property
    def label(self) -> str:
        """A short name for messages and tables."""
        if self.name:
            return self.name
        if self.environment is not None:
            return self.environment.id
        return "race" if self.race is not None else "unknown"

    def is_same(self, other: "World") -> bool:
        """Returns whether both describe the same environment, whatever they are called."""
        if self.race is None and self.environment is None:
            return self == other
        return (self.race, self.environment) == (other.race, other.environment)

    def first_difference(self, other: "World") -> Difference | None:
        """Returns the first setting that differs between two races or two environments.

        Returns None if there is none, or if the worlds are of different kinds.
        """
        for kind in ("race", "environment"):
            first, second = getattr(self, kind), getattr(other, kind)
            if first is None or second is None:
                continue
            ours, theirs = _flat(first.model_dump(), kind), _flat(second.model_dump(), kind)
            for name in {**ours, **theirs}:
                if ours.get(name) != theirs.get(name):
                    return Difference(
                        name, _shortened(ours.get(name)), _shortened(theirs.get(name))
                    )
        return None


def _shortened(value: Any) -> Any:
    """Returns a value for a message; own tracks are only named there."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return ", ".join(str(part.get("name")) for part in value)
    return value


# In float64: squares of float32 numbers reach 1e77, times the number of observations.
_Squares = Annotated[float, Field(ge=0.0, le=1e100)]


class Moments(Section):
    """Count, mean and sum of squared differences of numbers, in float64; these can be added."""

    count: Whole
    mean: list[Float32]
    squares: list[_Squares]  # sum over the observations of (observation - mean) ** 2

    def plus(self, other: "Moments") -> "Moments":
        """Returns the moments of both groups together (Chan et al. 1979)."""
        count = self.count + other.count
        first, second = np.array(self.mean), np.array(other.mean)
        change = second - first
        squares = np.array(self.squares) + np.array(other.squares)
        squares = squares + change**2 * (self.count * other.count / count)
        mean = first + change * (other.count / count)
        return Moments(count=count, mean=mean.tolist(), squares=squares.tolist())


class ObservationMoments(NamedTuple):
    """Mean and standard deviation of each number of an observation."""

    observations: int
    mean: np.ndarray  # [O] float64
    standard_deviation: np.ndarray  # [O] float64


class Part(Section):
    """One Parquet file."""

    name: str = Field(pattern=r"^part-\d{5,}\.parquet$")
    episodes: Count
    transitions: Count
    first_episode: Whole  # its `eps_id`; the following episodes count up
    bytes: Whole
    sha256: Sha256
    moments: Moments | None  # of the observations; null for images


class Source(Section):
    """One recording, import or other origin of episodes."""

    kind: Literal["recording", "import", "server", "split", "merge"]
    # What was recorded or read: driver, run, version, file, seed, commit, versions, time. A split
    # and a merge name the data sets that they read by `data_sha256`, a list of fingerprints.
    about: dict[str, str | int | float | bool | None | list[str]]


class Description(Section):
    """The contents of `dataset.json`."""

    format_version: Literal[1] = FORMAT_VERSION
    world: World
    observation: list[Entry]  # empty for images
    image_shape: tuple[Size, Size, Size] | None  # height, width, channels; null without images
    action: list[Entry]
    is_discrete: bool
    sources: list[Source] = []
    episodes: Whole = 0
    transitions: Whole = 0
    parts: list[Part] = []

    @property
    def spec(self) -> Spec:
        """The sizes of observations and actions."""
        return Spec(len(self.observation), len(self.action), self.is_discrete, self.image_shape)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted checksums of the parts: it identifies the recorded numbers."""
        checksums = "\n".join(sorted(part.sha256 for part in self.parts))
        return hashlib.sha256(checksums.encode()).hexdigest()

    @property
    def origins(self) -> list[str]:
        """Fingerprints of the data sets that this one was split or merged from, oldest first."""
        derived = [source for source in self.sources if source.kind in ("split", "merge")]
        named = [source.about.get("data_sha256") for source in derived]
        found = (one for names in named if isinstance(names, list) for one in names)
        return list(dict.fromkeys(found))

    @property
    def moments(self) -> ObservationMoments | None:
        """Moments over all observations; None for images and without episodes."""
        total: Moments | None = None
        for part in self.parts:
            if part.moments is not None:
                total = part.moments if total is None else total.plus(part.moments)
        if total is None or not total.count:
            return None
        deviation = np.sqrt(np.maximum(np.array(total.squares), 0.0) / total.count)
        return ObservationMoments(total.count, np.array(total.mean), deviation)

    def with_parts(self, parts: list[Part]) -> "Description":
        """Returns the description of these parts."""
        totals = {
            "episodes": sum(part.episodes for part in parts),
            "transitions": sum(part.transitions for part in parts),
        }
        return self.model_copy(update={"parts": parts, **totals})


def describe(world: World, spec: Spec) -> Description:
    """Returns the description of an empty data set; raises DatasetError for unsupported spaces."""
    if spec.image_shape is not None and spec.observation_size:
        raise DatasetError(
            f"the observations of {world.label} are an image and {spec.observation_size} numbers: "
            "a data set holds one of the two; select one with a Gymnasium wrapper such as "
            "gymnasium.wrappers.FilterObservation"
        )
    _require_something(spec, world.label)
    if world.race is not None:
        observation, action = entries_of_race(world.race)
    else:
        observation, action = entries_of_spec(spec)
    return Description(
        world=world,
        observation=observation,
        image_shape=spec.image_shape,
        action=action,
        is_discrete=spec.is_discrete,
    )


def sizes(spec: Spec) -> str:
    """Returns the sizes of observations and actions in words, for messages."""
    if spec.image_shape is not None:
        seen = f"images of {' x '.join(map(str, spec.image_shape))}"
    else:
        seen = f"observations of {spec.observation_size} numbers"
    kind = "discrete actions" if spec.is_discrete else "numbers as an action"
    return f"{seen} and {spec.action_size} {kind}"


def moments_of(observations: np.ndarray) -> Moments:
    """Returns the moments of observations `[M, O]`."""
    numbers = observations.astype(np.float64)
    mean = numbers.mean(axis=0)
    squares = np.square(numbers - mean).sum(axis=0)
    return Moments(count=len(numbers), mean=mean.tolist(), squares=squares.tolist())


def read_description(folder: Path) -> Description:
    """Reads `dataset.json`; raises DatasetError that says what is wrong with it."""
    path = folder / DESCRIPTION
    try:
        data = read_regular(path, _LARGEST_BYTES)
    except FileNotFoundError:
        raise DatasetError(_nothing_in(folder)) from None
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {reason_of(error)}") from None
    _require_version(path, data)
    try:
        description = Description.model_validate_json(data)
    except pydantic.ValidationError as error:
        raise DatasetError(
            f"{path} does not describe a data set: {explain(error, Description)[:400]}"
        ) from None
    _require_sizes(path, description)
    counted = description.with_parts(description.parts)
    if counted != description:
        raise DatasetError(
            f"{path} says {description.episodes} episodes with {description.transitions} "
            f"transitions, but its parts have {counted.episodes} with {counted.transitions}: "
            "record or merge the data set again"
        )
    return description


def write_description(folder: Path, description: Description) -> None:
    """Writes `dataset.json`, complete or as it was, and syncs it to the disk."""
    path = folder / DESCRIPTION
    text = description.model_dump_json(indent=1) + "\n"
    with durable.explaining_write_errors(path, DatasetError):
        durable.replace_durably(path, text.encode())


def _require_something(spec: Spec, name: str) -> None:
    """Raises DatasetError for observations or actions without any number."""
    if not (spec.observation_size or spec.image_shape) or not spec.action_size:
        raise DatasetError(
            f"{name} has {sizes(spec)}: there must be at least one number or an image to observe, "
            "and one number or action to choose"
        )


def _require_sizes(path: Path, description: Description) -> None:
    """Raises DatasetError if the schema, the world and the moments have different sizes."""
    world, spec = description.world, description.spec
    _require_something(spec, str(path))
    if world.race is not None:
        of_world = describe(world, spec).spec
        if spec != of_world:
            raise DatasetError(
                f"{path} lists {sizes(spec)}, but its world, {world.label}, has {sizes(of_world)}: "
                "record or import it again"
            )
    for index, part in enumerate(description.parts):
        moments = part.moments
        given = [] if moments is None else [len(moments.mean), len(moments.squares)]
        if given != ([] if spec.image_shape is not None else 2 * [spec.observation_size]):
            raise DatasetError(
                f"{path}: parts.{index}.moments must have a mean and squares for each number of an "
                "observation, and be null for images: record or import the data set again"
            )


def _flat(value: Any, name: str) -> dict[str, Any]:
    """Returns the leaves of a tree of settings by their dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    return {
        leaf: setting
        for key, below in value.items()
        for leaf, setting in _flat(below, f"{name}.{key}").items()
    }


def _require_version(path: Path, data: bytes) -> None:
    class Head(pydantic.BaseModel):
        format_version: Any = None

    try:
        version = Head.model_validate_json(data).format_version
    except pydantic.ValidationError:
        raise DatasetError(
            f"{path} is not a description of a data set: it is no JSON object"
        ) from None
    if version != FORMAT_VERSION:
        raise DatasetError(
            f"{path} has the format version {version!r}; this rlcar reads {FORMAT_VERSION}: "
            "use the version of rlcar that wrote it"
        )


def _nothing_in(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist: name the folder of a data set"
    if not folder.is_dir():
        return f"{folder} is a file: name a folder, or import the file with rlcar data import"
    if not any(folder.iterdir()):
        return f"{folder} is empty: record a data set into it with rlcar data record"
    return (
        f"{folder} holds no {DESCRIPTION}, so it is not a data set: name another folder, or "
        "import its files with rlcar data import"
    )
