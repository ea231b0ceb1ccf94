"""Settings of the racing world: track, car, sensors, rival, rules."""

from typing import Literal

import pydantic
from pydantic import Field

from rlcar.config.own_track import (
    MOST_OWN_TRACKS,
    MOST_POINTS,
    NARROWEST_HALF_WIDTH_PX,
    WIDEST_HALF_WIDTH_PX,
    OwnTrack,
)
from rlcar.settings.numbers import NonNegative, Pixels
from rlcar.settings.section import Section

# The distance sensor of every car, which is part of its observation and therefore no setting.
RAY_ANGLES_DEG = (-45.0, -22.5, 0.0, 22.5, 45.0)  # from the heading; positive is to the left
RANGE_PX = 150
# The motor, the brakes and the steering of every car.
ACCELERATION_PX_PER_STEP2 = 0.2
BRAKE_PX_PER_STEP2 = 0.4  # single-track car; the classic car brakes with its acceleration
DRAG_PER_STEP = 0.01
CLASSIC_TOP_SPEED_PX_PER_STEP = 5
STEERING_DEG_PER_STEP = 5  # classic car
FRONT_WHEEL_DEG = 30  # single-track car at steering 1
WHEELBASE_PX = 16


class Range(Section):
    """A range from which each car draws a number for each episode, uniformly."""

    low: NonNegative
    """Lowest value that may be drawn."""
    high: NonNegative
    """Highest value that may be drawn."""

    @pydantic.model_validator(mode="after")
    def _low_is_lower(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class TrackConfig(Section):
    """Shape of the closed road; the defaults are those of the `classic` world."""

    points: int = Field(100, ge=16, le=MOST_POINTS)
    """Number of points of the centre line."""
    base_radius_px: Pixels = 210.0
    """Mean radius of the closed road."""
    noise_amplitude: float = Field(0.3, ge=0.0, lt=1.0)
    """Strength of the random changes of the radius, relative to it; 0 gives a circle."""
    noise_harmonics: int = Field(4, ge=1, le=16)
    """Number of harmonics of the random radius; more make sharper bends."""
    half_width_px: float = Field(40.0, ge=NARROWEST_HALF_WIDTH_PX, le=WIDEST_HALF_WIDTH_PX)
    """Half the width of the road."""
    half_width_low_px: float | None = Field(
        None, ge=NARROWEST_HALF_WIDTH_PX, le=WIDEST_HALF_WIDTH_PX
    )
    """Lower end of the half-width, if each track draws its own between it and `half_width_px`.
    null gives all tracks the same width."""
    obstacles: int = Field(5, ge=0, le=16)
    """Number of circular obstacles."""
    obstacle_radius_px: Pixels = 10.0
    """Radius of an obstacle."""
    obstacle_placement: Literal["infield", "road"] = "infield"
    """Where obstacles lie: on the road, or on the infield, where only cars that leave the road
    meet them."""
    obstacle_gap_px: Pixels = 30.0
    """Width of road that every obstacle on it leaves free on one side."""
    own: tuple[OwnTrack, ...] = Field((), max_length=MOST_OWN_TRACKS, strict=False)
    """Tracks of your own, which `--tracks` reads from files, in place of drawn ones. Empty means
    that tracks are drawn from their seeds."""

    @pydantic.field_validator("own", mode="after")
    @classmethod
    def _names_differ(cls, own: tuple[OwnTrack, ...]) -> tuple[OwnTrack, ...]:
        names = [track.name for track in own]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"there are two tracks with the name {twice!r}: rename one of them")
        return own

    @pydantic.model_validator(mode="after")
    def _own_tracks_have_all_points(self) -> "TrackConfig":
        for track in self.own:
            if track.points != self.points:
                raise ValueError(
                    f"the own track {track.name!r} has {track.points} points, and points is "
                    f"{self.points}: read it again with --tracks"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _widths_fit(self) -> "TrackConfig":
        low_px = self.half_width_low_px
        if low_px is not None and low_px > self.half_width_px:
            raise ValueError(
                f"half_width_low_px {low_px} is above half_width_px {self.half_width_px}"
            )
        narrowest_px = self.half_width_px if low_px is None else low_px
        on_road = self.obstacle_placement == "road" and self.obstacles > 0
        if on_road and self.obstacle_gap_px > 2 * narrowest_px - self.obstacle_radius_px:
            raise ValueError(
                f"an obstacle of radius {self.obstacle_radius_px} px leaves no gap of "
                f"{self.obstacle_gap_px} px on a road of half-width {narrowest_px} px: use a "
                "smaller obstacle_radius_px or obstacle_gap_px, or a wider road"
            )
        return self


class VehicleConfig(Section):
    """Dynamics of the car; the defaults are those of the `classic` world."""

    model: Literal["classic", "single_track"] = "classic"
    """Model of the car: `classic` turns on the spot; `single_track` steers with its front axle
    and has a grip limit."""
    top_speed_px_per_step: float = Field(5.0, ge=1.0, le=8.0)
    """Top speed. The classic car has 5."""
    grip_px_per_step2: Range = Range(low=0.5, high=0.5)
    """Largest product of speed and yaw rate of a single-track car, in 0.05 to 0.7; beyond it the
    car understeers."""
    delay_steps: Range = Range(low=0.0, high=0.0)
    """Whole number of env steps, 0 to 3, from an action to its effect."""

    @pydantic.model_validator(mode="after")
    def _is_drivable(self) -> "VehicleConfig":
        if self.model == "classic" and self.top_speed_px_per_step != 5.0:
            raise ValueError("the classic car's top speed is 5 px/step; single_track may have more")
        if not 0.05 <= self.grip_px_per_step2.low <= self.grip_px_per_step2.high <= 0.7:
            raise ValueError("grip_px_per_step2 lies in 0.05..0.7")
        if self.delay_steps.high > 3 or self.delay_steps.low % 1 or self.delay_steps.high % 1:
            raise ValueError("delay_steps are whole numbers in 0..3")
        return self


class SensorConfig(Section):
    """Errors of the ray sensors; none by default."""

    noise_px: Range = Range(low=0.0, high=0.0)
    """Half the width of the uniform noise on ray distances, in 0 to 50."""
    dropout: Range = Range(low=0.0, high=0.0)
    """Probability, in 0 to 0.9, that a ray reports "nothing in range"."""

    @pydantic.model_validator(mode="after")
    def _are_small(self) -> "SensorConfig":
        if self.noise_px.high > 50 or self.dropout.high > 0.9:
            raise ValueError("noise_px lies in 0..50 and dropout in 0..0.9")
        return self


class RivalConfig(Section):
    """A second car that ignores the first one: a moving obstacle."""

    radius_px: float = Field(8.0, ge=1e-3, le=30.0)
    """Radius of the second car."""
    pace_px_per_step: float = Field(2.0, ge=1e-6, le=5.0)
    """Speed of a scripted second car."""
    head_start_laps: Range = Range(low=0.2, high=0.8)
    """Distance by which the second car starts ahead, in 0.05 to 0.95."""

    @pydantic.model_validator(mode="after")
    def _starts_ahead(self) -> "RivalConfig":
        if not 0.05 <= self.head_start_laps.low <= self.head_start_laps.high <= 0.95:
            raise ValueError(
                "head_start_laps lies in 0.05..0.95: the rival must not start on top of the car"
            )
        return self


class RaceConfig(Section):
    """Rules and reward of the race."""

    track: TrackConfig = TrackConfig()
    """Shape of the road."""
    vehicle: VehicleConfig = VehicleConfig()
    """Dynamics of the car."""
    sensors: SensorConfig = SensorConfig()
    """Errors of the ray sensors."""
    rival: RivalConfig | None = None
    """A second car on the road; null means none."""
    cars_per_track: int = Field(1, ge=1, le=8)
    """Number of cars that race on each track, see each other with their rays and can collide. An
    evaluation of laps always drives one car alone."""
    car_radius_px: float = Field(10.0, ge=1.0, le=11.0)
    """With several cars on a track, another car is a circle of this radius: rays end at it, and a
    car whose centre is in it has run into it."""
    place_reward: float = Field(0.0, ge=0.0, le=30.0)
    """Reward for overtaking another car. The car that is overtaken is charged the same."""
    reward: Literal["progress", "documented"] = "progress"
    """Reward function: `progress` pays 1,000 for a lap, charges 0.1 for each env step and 10 for
    a crash; `documented` is that of the first product, which pays speed, 0.1 on the road and a
    bonus at checkpoints, and charges 10 for a crash."""
    laps: int = Field(1, ge=1, le=1000)
    """Number of laps after which a car has finished."""
    time_limit_steps: int = Field(1000, ge=1, le=1_000_000)
    """Number of env steps after which an episode is cut off."""

    @property
    def alone(self) -> "RaceConfig":
        """The same race with a single car on each track."""
        return self if self.cars_per_track == 1 else self.model_copy(update={"cars_per_track": 1})

    @pydantic.model_validator(mode="after")
    def _others_are_the_rivals(self) -> "RaceConfig":
        if self.cars_per_track > 1 and self.rival is not None:
            raise ValueError(
                f"with cars_per_track {self.cars_per_track} the other cars are the rivals: set "
                "race.rival=null"
            )
        return self
