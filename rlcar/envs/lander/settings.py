"""The settings of the lander: named scenarios, each of whose numbers can be replaced."""

from typing import Annotated, Literal, NamedTuple, Self

import pydantic
from pydantic import Field

from rlcar.settings.section import Section

Metres = Annotated[float, Field(ge=0.0, le=200_000.0)]
Speed = Annotated[float, Field(ge=0.0, le=1_000.0)]
Scenario = Literal["stage-1", "stage-2", "stage-3", "stage-4", "stage-5"]


class Mission(NamedTuple):
    """The numbers of a scenario: how an episode starts, and how long it may take."""

    start_altitude_min_m: float
    start_altitude_max_m: float
    start_offset_min_m: float  # horizontal distance to the centre of the pad
    start_offset_max_m: float
    start_descent_max_m_s: float  # downward speed, drawn from a third of it to all of it
    start_drift_max_m_s: float  # horizontal speed, in any direction
    start_tilt_max_deg: float
    fuel_kg: float
    time_limit_steps: int


_FULL_TANK_KG = 100.0
_LOWEST_START_M = 20.0

SCENARIOS: dict[Scenario, Mission] = {
    "stage-1": Mission(30.0, 60.0, 0.0, 10.0, 2.0, 1.0, 3.0, _FULL_TANK_KG, 600),
    "stage-2": Mission(100.0, 300.0, 0.0, 50.0, 8.0, 3.0, 5.0, _FULL_TANK_KG, 800),
    "stage-3": Mission(300.0, 800.0, 0.0, 150.0, 15.0, 6.0, 8.0, _FULL_TANK_KG, 1_000),
    "stage-4": Mission(500.0, 1_500.0, 0.0, 300.0, 25.0, 10.0, 10.0, _FULL_TANK_KG, 1_200),
    "stage-5": Mission(500.0, 1_500.0, 300.0, 800.0, 25.0, 15.0, 10.0, _FULL_TANK_KG, 1_500),
}


class LanderSettings(Section):
    """A lunar lander that must land softly and upright on a pad, with limited fuel and time."""

    scenario: Scenario = "stage-1"
    """How the episodes start, from "stage-1" (30 to 60 m above the pad) to "stage-5" (500 to
    1,500 m above the ground and 300 to 800 m beside the pad)."""
    start_altitude_min_m: Metres | None = None
    """Least altitude at the start, in m above the pad; null means that of the scenario."""
    start_altitude_max_m: Metres | None = None
    """Largest altitude at the start, in m above the pad; null means that of the scenario."""
    start_offset_min_m: Metres | None = None
    """Least horizontal distance to the pad at the start, in m; null means that of the scenario."""
    start_offset_max_m: Metres | None = None
    """Largest horizontal distance to the pad at the start, in m; null means that of the
    scenario."""
    start_descent_max_m_s: Speed | None = None
    """Largest downward speed at the start, in m/s; it is drawn from a third of this number to all
    of it. null means that of the scenario."""
    start_drift_max_m_s: Speed | None = None
    """Largest horizontal speed at the start, in m/s; null means that of the scenario."""
    start_tilt_max_deg: Annotated[float, Field(ge=0.0, le=45.0)] | None = None
    """Largest angle between the lander's axis and the vertical at the start, in degrees; null
    means that of the scenario."""
    fuel_kg: Annotated[float, Field(ge=0.1, le=100.0)] | None = None
    """Fuel at the start, in kg; the tank holds 100 kg. null means that of the scenario."""
    time_limit_steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Number of env steps of 0.1 s after which an episode has failed; null means that of the
    scenario."""
    terrains: Annotated[int, Field(ge=1, le=256)] = 16
    """Number of height fields; each episode draws one of them."""
    terrain_points: Annotated[int, Field(ge=9, le=257)] = 81
    """Number of heights along each side of a height field."""
    terrain_cell_m: Annotated[float, Field(ge=5.0, le=1_000.0)] = 40.0
    """Distance between neighbouring heights, in m."""
    terrain_slope: Annotated[float, Field(ge=0.0, le=0.4)] = 0.25
    """Largest slope of the terrain; 0 is a plain."""
    terrain_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the height fields."""
    lidar_rays: Annotated[int, Field(ge=1, le=64)] = 8
    """Number of rays of the lidar, at equal angles around the vertical."""

    @pydantic.model_validator(mode="after")
    def _is_consistent(self) -> Self:
        mission = mission_of(self)
        for what in ("altitude", "offset"):
            low = getattr(mission, f"start_{what}_min_m")
            high = getattr(mission, f"start_{what}_max_m")
            if low > high:
                raise ValueError(
                    f"start_{what}_min_m = {low:g} is above start_{what}_max_m = {high:g}: swap "
                    f"them, or set both, because {self.scenario} has its own"
                )
        if mission.start_altitude_min_m < _LOWEST_START_M:
            raise ValueError(
                f"start_altitude_min_m = {mission.start_altitude_min_m:g} is below "
                f"{_LOWEST_START_M:g} m, where the lander may touch the ground at once: start at "
                f"{_LOWEST_START_M:g} m or higher"
            )
        return self


def mission_of(settings: LanderSettings) -> Mission:
    """Returns the numbers of a scenario with the replacements."""
    chosen = {name: getattr(settings, name) for name in Mission._fields}
    replaced = {name: value for name, value in chosen.items() if value is not None}
    return SCENARIOS[settings.scenario]._replace(**replaced)
