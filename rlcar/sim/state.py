"""What a race remembers of each car, and what it tells."""

from typing import Any, NamedTuple

from rlcar.types import Array


class RaceState(NamedTuple):
    """N cars in fixed point (`rlcar.sim.fixed`), all `[N]` int32 but the last two; y is up."""

    car_id: Any  # the caller's name of the car, the same in any batch
    seed: Any
    episode: Any  # counts up from 0
    track: Any  # index into the pool
    x: Any  # 2^-12 px
    y: Any
    speed: Any  # 2^-16 px/step
    heading: Any  # 2^-22 of a turn
    cell: Any  # between which gates the car is
    lap: Any  # signed: crossings of the start, forward less backward
    position: Any  # along the lap, 2^-20 of it
    laps_done: Any  # the most laps reached; reversing cannot earn one again
    lap_start_step: Any
    checkpoint: Any  # the most 10 % marks reached
    checkpoint_step: Any  # when
    episode_steps: Any
    is_ended: Any  # bool: the next step ignores its action and starts the next episode
    hidden: Any = None  # `rlcar.sim.hidden.Hidden`, unless nothing is hidden


class Events(NamedTuple):
    """What a step did, for reports; all `[N]`."""

    lap_time_steps: Array  # int32, steps the lap took when one was completed at this step, else 0
    is_crash: Array
    is_finish: Array


class CarView(NamedTuple):
    """The public float32 view of N cars; screen coordinates, y down."""

    x_px: Array
    y_px: Array
    speed_px_per_step: Array
    heading_deg: Array  # 0..360, 90 points up
    progress: Array  # 0..1 of this lap
    episode_steps: Array  # int32
    track_index: Array  # int32, into the pool
    rival_px: Array  # [N, 2] x, y of the second car; NaN where there is none
    delay_steps: Array  # int32, from an action to its effect


class Outcome(NamedTuple):
    """What `advance` did, before any reset; all `[N]`, rewards in 2^-18."""

    reward: Any
    is_on_road: Any
    is_crash: Any
    is_finish: Any
    is_timeout: Any
    lap_time_steps: Any
