"""Describes the numbers of an observation and of an action: names, units and ranges.

`rlcar.envs.schema` chooses the description for the environment of a config.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rlcar.config.race import RANGE_PX, RAY_ANGLES_DEG, RaceConfig
from rlcar.config.tree import Config
from rlcar.settings.numbers import Float32
from rlcar.settings.section import Section
from rlcar.types import Spec

Schema = list[dict[str, Any]]

SAFE_ACTION_OF_RACE = (0.0, -1.0)  # steering straight ahead, full brake
DEFAULT_SAFE = 0.0  # of a number of an action that names no other value


class Entry(Section):
    """One number; null for an unknown bound."""

    name: str
    unit: str  # the meaning of the value 1.0
    low: Float32 | None
    high: Float32 | None


class ActionEntry(Entry):
    """One number of an action.

    `safe` is its value in the safe action, which a server sends where the policy gives no action in
    time. Without it that is `DEFAULT_SAFE`: for a continuous action the middle of its range.
    """

    safe: Float32 | None = None


def schema_of_race(config: Config) -> tuple[Schema, Schema]:
    """Describes the race's observation and action."""
    observation, action = entries_of_race(config.race)
    safe = zip(action, SAFE_ACTION_OF_RACE, strict=True)
    return (
        [entry.model_dump() for entry in observation],
        [{**entry.model_dump(), "safe": value} for entry, value in safe],
    )


def dump_entries(entries: Iterable[Entry]) -> Schema:
    """Returns entries as a version stores them: without `safe` where it is not given."""
    return [entry.model_dump(exclude_defaults=True) for entry in entries]


def is_same_schema(one: Schema, other: Schema) -> bool:
    """Returns whether two schemas have the same names, units and ranges.

    Versions of an older rlcar do not say which action is safe, so that is not compared.
    """

    def meaning(schema: Schema) -> list[list[Any]]:
        return [[entry[name] for name in Entry.model_fields] for entry in schema]

    return meaning(one) == meaning(other)


def has_discrete_actions(action: Schema) -> bool:
    """Returns whether an action is one-hot: `entries_of_spec` gives its entries from 0 to 1."""
    return all((entry["low"], entry["high"]) == (0.0, 1.0) for entry in action)


def safe_action(metadata: Mapping[str, Any]) -> tuple[float, ...]:
    """Returns the safe action of a version's metadata, `[A]`.

    Versions of an older rlcar do not hold it: in the race it is then the brake, elsewhere zeros.
    """
    action = metadata["action"]
    if any(entry.get("safe") is not None for entry in action):
        return tuple(float(entry.get("safe") or DEFAULT_SAFE) for entry in action)
    section = metadata["config"].get("environment") or {}
    is_race = not section.get("id") and len(action) == len(SAFE_ACTION_OF_RACE)
    return SAFE_ACTION_OF_RACE if is_race else (DEFAULT_SAFE,) * len(action)


def entries_of_spec(spec: Spec) -> tuple[list[Entry], list[Entry]]:
    """Describes the numbers of an environment of which only the sizes are known."""
    low, high = (0.0, 1.0) if spec.is_discrete else (-1.0, 1.0)
    observation = [_entry(f"observation_{index}") for index in range(spec.observation_size)]
    return observation, [_entry(f"action_{i}", "", low, high) for i in range(spec.action_size)]


def entries_of_race(race: RaceConfig) -> tuple[list[Entry], list[Entry]]:
    """Describes the observation and the action of the race."""
    top = race.vehicle.top_speed_px_per_step
    rays = [_entry(f"ray_{angle:+g}_deg", f"{RANGE_PX} px", 0.0, 1.0) for angle in RAY_ANGLES_DEG]
    observation = [*rays, _entry("speed", f"{top:g} px/step", 0.0, 1.0)]
    action = [_entry(name, "full", -1.0, 1.0) for name in ("steering", "throttle")]
    return observation, action


def _entry(name: str, unit: str = "", low: float | None = None, high: float | None = None) -> Entry:
    return Entry(name=name, unit=unit, low=low, high=high)
