"""The race: compiled, with tracks of its own and laps to evaluate."""

from collections.abc import Callable

from rlcar.config import Config
from rlcar.evaluation.environment.kind import EnvironmentKind, Evaluate, ShouldStop
from rlcar.evaluation.laps import make_evaluator, score_laps
from rlcar.rollout.compiled import Rollout
from rlcar.sim import SPEC
from rlcar.sim.compiled import make_compiled_race
from rlcar.track import TRACK_SETS, make_pool
from rlcar.types import Policy


def _make_rollout(
    config: Config, policy: Policy, first_car: int, restart_id: int, should_stop: ShouldStop
) -> Rollout:
    del should_stop  # a block of the race is short
    race = make_compiled_race(config.race, make_pool(TRACK_SETS["train"], config.race.track))
    return Rollout(race, config, policy, first_car, restart_id)


def _make_evaluation(
    config: Config, policy: Policy, should_stop: ShouldStop, on_share: Callable[[float], None]
) -> Evaluate:
    del should_stop, on_share  # so is its evaluation
    drive = make_evaluator(policy, config.race, config.training.evaluate_set)
    return lambda params: score_laps(drive(params))


KIND = EnvironmentKind(
    name="race",
    is_chosen=lambda config: config.is_race,
    spec_of=lambda config: SPEC,
    make_rollout=_make_rollout,
    make_evaluation=_make_evaluation,
    must_close=False,
    is_compiled=True,
)
