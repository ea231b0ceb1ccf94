"""What a policy's inputs and outputs mean: names, units and ranges."""

from typing import Any

from rlcar.config import Config
from rlcar.types import Spec

Schema = list[dict[str, Any]]


def observation_schema(config: Config, spec: Spec) -> Schema:
    """Describes each number of an observation; without bounds where nobody told any."""
    if config.environment.id:
        return [_entry(f"observation_{index}") for index in range(spec.observation_size)]
    from rlcar.sim.sensors import RANGE_PX, RAY_ANGLES_DEG

    top = config.race.vehicle.top_speed_px_per_step
    rays = [_entry(f"ray_{angle:+g}_deg", f"{RANGE_PX} px", 0.0, 1.0) for angle in RAY_ANGLES_DEG]
    return [*rays, _entry("speed", f"{top:g} px/step", 0.0, 1.0)]


def action_schema(config: Config, spec: Spec) -> Schema:
    """Describes each number of an action."""
    if config.environment.id:
        low, high = (0.0, 1.0) if spec.is_discrete else (-1.0, 1.0)
        return [_entry(f"action_{index}", "", low, high) for index in range(spec.action_size)]
    return [_entry("steering", "full lock", -1.0, 1.0), _entry("throttle", "full", -1.0, 1.0)]


def _entry(
    name: str, unit: str = "", low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    return {"name": name, "unit": unit, "low": low, "high": high}
