"""Describes the numbers of an observation and of an action: names, units and ranges.

`rlcar.envs.schema` chooses the description for the environment of a config.
"""

from typing import Any

from rlcar.config.race import RANGE_PX, RAY_ANGLES_DEG, RaceConfig
from rlcar.config.tree import Config
from rlcar.settings.numbers import Float32
from rlcar.settings.section import Section
from rlcar.types import Spec

Schema = list[dict[str, Any]]


class Entry(Section):
    """One number; null for an unknown bound."""

    name: str
    unit: str  # the meaning of the value 1.0
    low: Float32 | None
    high: Float32 | None


def schema_of_race(config: Config) -> tuple[Schema, Schema]:
    """Describes the race's observation and action."""
    observation, action = entries_of_race(config.race)
    return [entry.model_dump() for entry in observation], [entry.model_dump() for entry in action]


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
