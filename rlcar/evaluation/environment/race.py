"""The race: compiled, with tracks of its own and laps to evaluate."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from rlcar.agents import make_agent
from rlcar.config import Config
from rlcar.evaluation.environment.kind import EnvironmentKind, Evaluate, ShouldStop
from rlcar.evaluation.laps import TIME_LIMIT_STEPS, make_evaluator, score_laps, track_seeds
from rlcar.rollout.compiled import Rollout
from rlcar.rollout.self_play import SelfPlayRollout, past_cars
from rlcar.sim import SPEC
from rlcar.sim.compiled import make_compiled_race
from rlcar.track import make_pool, make_tracks, set_seeds
from rlcar.track.bound import lap_time_bound_steps
from rlcar.types import Policy

# A bound takes up to 0.2 s. If those of the first tracks are far below the limit, the others, which
# are of the same size, are so too.
_PROBED_TRACKS, _CLEARLY_POSSIBLE = 4, 0.7


def _make_rollout(
    config: Config, policy: Policy, first_car: int, restart_id: int, should_stop: ShouldStop
) -> Rollout:
    del should_stop  # a block of the race is short
    pool = make_pool(set_seeds("train", config.race.track), config.race.track)
    race = make_compiled_race(config.race, pool)
    if not past_cars(config):
        return Rollout(race, config, policy, first_car, restart_id)
    learner = make_agent(config, SPEC).learner
    untrained = jax.device_get(learner.policy_params(learner.init(config.seed)))
    return SelfPlayRollout(race, config, policy, untrained, first_car, restart_id)


def _make_evaluation(
    config: Config, policy: Policy, should_stop: ShouldStop, on_share: Callable[[float], None]
) -> Evaluate:
    del should_stop, on_share  # so is its evaluation
    track_set = config.training.evaluate_set
    drive = make_evaluator(policy, config.race, track_set)
    bounds_steps = _bounds_steps(config, track_seeds(track_set, config.race.track))
    return lambda params: score_laps(drive(params), bounds_steps)


def _bounds_steps(config: Config, seeds: Sequence[int]) -> np.ndarray:
    tracks = make_tracks(seeds, config.race.track)
    return lap_time_bound_steps(tracks, config.race.vehicle.top_speed_px_per_step)


def _make_fresh_evaluation(
    config: Config, policy: Policy, seeds: Sequence[int], should_stop: ShouldStop
) -> Evaluate:
    del should_stop
    drive = make_evaluator(policy, config.race, seeds)
    return lambda params: score_laps(drive(params))


def _infeasibility(config: Config, success_rate: float) -> str:
    """Compares the least time of a lap on each track of the evaluation with the time limit."""
    limit_steps = min(config.race.time_limit_steps, TIME_LIMIT_STEPS)
    seeds = track_seeds(config.training.evaluate_set, config.race.track)
    bound_steps = _bounds_steps(config, seeds[:_PROBED_TRACKS])
    if bound_steps.max() <= _CLEARLY_POSSIBLE * limit_steps:
        return ""
    bound_steps = _bounds_steps(config, seeds)
    possible = float((bound_steps <= limit_steps).mean())
    if possible >= success_rate:
        return ""
    return (
        f"no car can lap more than {100 * possible:.0f} % of the tracks within the time limit of "
        f"{limit_steps} steps: at its top speed of "
        f"{config.race.vehicle.top_speed_px_per_step:g} px per step a lap takes at least "
        f"{bound_steps.min()} to {bound_steps.max()} steps. Raise race.time_limit_steps, of which "
        f"evaluations use at most {TIME_LIMIT_STEPS}"
    )


KIND = EnvironmentKind(
    name="race",
    is_chosen=lambda config: config.is_race,
    spec_of=lambda config: SPEC,
    make_rollout=_make_rollout,
    make_evaluation=_make_evaluation,
    make_fresh_evaluation=_make_fresh_evaluation,
    infeasibility=_infeasibility,
    reward_settings=lambda config: {"race.reward": config.race.reward},
    must_close=False,
    is_compiled=True,
)
