"""Describes the observation and the action of the environment that a config names."""

from rlcar.config import Config
from rlcar.config.schema import (
    DEFAULT_SAFE,
    Entry,
    Schema,
    dump_entries,
    entries_of_spec,
    schema_of_race,
)
from rlcar.envs.compiled import COMPILED, compiled_settings
from rlcar.types import Spec


def schema_of(config: Config, spec: Spec) -> tuple[Schema, Schema]:
    """Returns names, units and ranges of the observation's and the action's numbers."""
    return known_schema_of(config) or _dumped(*entries_of_spec(spec))


def known_schema_of(config: Config) -> tuple[Schema, Schema] | None:
    """Returns the schema that the config alone implies; None where only the environment has sizes.

    Raises ConfigError for invalid settings of a compiled environment.
    """
    if config.is_race:
        return schema_of_race(config)
    descriptor = COMPILED.get(config.environment.id)
    if descriptor is None:
        return None
    observation, action = _dumped(*descriptor.entries(compiled_settings(config.environment)))
    # A version says what its servers send without the policy, and does not leave it to their rlcar.
    return observation, [{**entry, "safe": entry.get("safe", DEFAULT_SAFE)} for entry in action]


def _dumped(observation: list[Entry], action: list[Entry]) -> tuple[Schema, Schema]:
    return dump_entries(observation), dump_entries(action)
