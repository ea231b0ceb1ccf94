"""The state of the cars in a race, the events of a step, and the view of it for people."""

from typing import NamedTuple

from rlcar.sim.hidden import Hidden
from rlcar.sim.traffic import Traffic
from rlcar.types import Array


class RaceState(NamedTuple):
    """N cars in the fixed-point formats of `rlcar.sim.fixed`, `[N]` int32 each; y points up."""

    car_id: Array  # the caller's number of the car, the same in any batch
    seed: Array
    episode: Array  # counts up from 0
    track: Array  # index into the track pool
    x: Array  # 2^-12 px
    y: Array  # 2^-12 px
    speed: Array  # 2^-16 px/step
    heading: Array  # 2^-22 of a turn
    cell: Array  # the car is between the gates `cell` and `cell + 1` of its track
    lap: Array  # signed: forward minus backward crossings of the start line
    position: Array  # along the lap, 2^-20 of a lap
    laps_done: Array  # largest number of laps reached, so that reversing cannot earn a lap twice
    lap_start_step: Array  # env step of the episode in which the current lap began
    checkpoint: Array  # largest number of checkpoints (tenths of a lap) reached
    checkpoint_step: Array  # env step of the episode in which it was reached
    episode_steps: Array  # env steps since the start of the episode
    is_ended: Array  # bool: the next step ignores its action and starts the next episode
    hidden: Hidden | None = None  # None in a race without hidden conditions
    traffic: Traffic | None = None  # None with a single car on each track


class Encounters(NamedTuple):
    """What happened between the cars of a track in a step; each field `[N]`."""

    is_at_fault: Array  # bool, the car ran into one ahead of it, which is also a crash
    overtakes: Array  # int32, number of cars that it overtook
    is_racing: Array  # bool, False for a step of practice


class Events(NamedTuple):
    """What happened in a step, for reports; each field `[N]`."""

    lap_time_steps: Array  # int32, duration of the lap that ended in this step, else 0
    is_crash: Array  # bool
    is_finish: Array  # bool
    encounters: Encounters | None = None  # None with a single car on each track


class CarView(NamedTuple):
    """N cars for drawing and people, each field `[N]` float32 if not noted; y points down."""

    x_px: Array
    y_px: Array
    speed_px_per_step: Array
    heading_deg: Array  # 0 to 360; 0 is to the right and 90 is up
    progress: Array  # 0 to 1 of the lap
    episode_steps: Array  # int32
    track_index: Array  # int32, index into the track pool
    rival_px: Array  # [N, 2] x, y of the second car; NaN without one
    delay_steps: Array  # int32, env steps from an action to its effect
    is_racing: Array  # bool; False for a car that practises alone after its race


class Outcome(NamedTuple):
    """The result of `race.advance`, before any reset; each field `[N]`."""

    reward: Array  # int32, 2^-18
    is_on_road: Array  # bool
    is_crash: Array  # bool
    is_finish: Array  # bool
    is_timeout: Array  # bool
    lap_time_steps: Array  # int32, duration of the lap that ended in this step, else 0
    encounters: Encounters | None  # None with a single car on each track
