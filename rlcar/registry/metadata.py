"""The metadata of a version, validated, so that imported versions are as complete as our own."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from rlcar.agents import AlgorithmName
from rlcar.config import parse_config
from rlcar.config.schema import ActionEntry, Entry, dump_entries, is_same_schema
from rlcar.envs.schema import known_schema_of
from rlcar.errors import ConfigError, RegistryError
from rlcar.settings.explain import problems
from rlcar.settings.numbers import Signed, Whole
from rlcar.settings.section import Section


def _is_printable(text: str) -> str:
    """Refuses control characters, which could change what a terminal shows."""
    if not text.isprintable():
        raise ValueError("it holds characters that cannot be printed")
    return text


def _texts_are_printable(tree: dict[str, Any]) -> dict[str, Any]:
    for name, value in tree.items():
        _is_printable(name)
        if isinstance(value, dict):
            _texts_are_printable(value)
        elif isinstance(value, str):
            _is_printable(value)
    return tree


Text = Annotated[str, Field(max_length=1000), pydantic.AfterValidator(_is_printable)]
Tree = Annotated[dict[str, Any], pydantic.AfterValidator(_texts_are_printable)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class LapResults(Section):
    """Results of an evaluation, as in report.json."""

    track_set: Text
    tracks: Whole
    time_limit_steps: Whole
    bound_steps: Signed  # mean lower bound of a lap
    lap_rate: Share
    lap_time_steps: Signed | None  # mean over lapped tracks
    over_bound_pct: Signed  # mean over all tracks, those not lapped charged the limit
    crash_rate: Share
    timeout_rate: Share
    smoothness: Signed  # mean change of steering between steps
    per_track: list[dict[str, Signed | Whole | bool | None]] = Field(max_length=10_000)


class Lineage(Section):
    """Origin of a version; null means unknown."""

    run: Text | None
    checkpoint: Text | None
    env_steps: Whole | None
    train_steps: Whole | None
    seed: Whole | None
    commit: Text | None
    trained: Text | None  # ISO 8601
    versions: dict[Text, Text] | None  # of python, rlcar, jax, haiku and numpy in training
    cost: (
        Signed | None
    )  # by which training found it best: mean lap time in steps, the limit if none
    parent: Whole | None = None  # the version of the same run before it, or that it is to replace
    data: Text | None = None  # fingerprint of the data set that it learned from
    # Fingerprints of those from which that one was split or merged.
    data_origins: list[Text] | None = Field(None, max_length=10_000)
    imported: Text | None = None  # the file it came in, with its SHA-256


class Metadata(Section):
    """The description of a version, without its number, time and files."""

    description: Text
    algorithm: AlgorithmName
    config: Tree  # the whole tree of rlcar.config
    observation: list[Entry]
    action: list[ActionEntry]
    normaliser: dict[Literal["epsilon", "limit"], Signed] | None  # of the arrays moments.*
    laps: LapResults | None
    lineage: Lineage


def check_metadata(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the metadata with every field; raises RegistryError if they are invalid."""
    try:
        checked = Metadata.model_validate(metadata)
        config = parse_config(checked.config)
        schema = known_schema_of(config)
    except pydantic.ValidationError as error:
        first = problems(error, Metadata)[0]
        raise RegistryError(f"{name}: {first.name[:80]}: {first.reason}") from None
    except ConfigError as error:
        raise RegistryError(f"{name} has a config that this rlcar cannot read: {error}") from None
    if config.algorithm != checked.algorithm:
        raise RegistryError(f"{name} says {checked.algorithm}, its config {config.algorithm}")
    described = dump_entries(checked.observation), dump_entries(checked.action)
    if schema is not None and not all(map(is_same_schema, described, schema)):
        whose = "the race" if config.is_race else config.environment.id
        raise RegistryError(f"{name} describes other observations or actions than those of {whose}")
    observation, action = described
    return checked.model_dump() | {"observation": observation, "action": action}
