"""The state machine of a curriculum: which stage and attempt come next. It does no I/O.

    enter ──▶ train ──▶ evaluate ──▶ advance ──▶ enter (next stage) … ──▶ done
      ▲         ▲          │ not passed
      │         └──────────┤ env steps are left
      ├────────────────────┤ attempts are left
      └───── regress ◀─────┤ after the last attempt
                           └──▶ fail

`next_state` is a pure function of rules, state and event, so that a journal of events reproduces
every state.
"""

from enum import StrEnum
from typing import NamedTuple

# An attempt ends only with its env steps after so many confirmations that failed. Each confirmation
# demands a higher level of confidence than the one before (`rlcar.training.curriculum.thresholds`).
MOST_CONFIRMATIONS = 6

Score = tuple[float, float]  # (success rate or 0, mean reward): greater is better


class Phase(StrEnum):
    """What a curriculum has to do next."""

    ENTER = "enter"  # check the stage and the learner that it begins with
    TRAIN = "train"  # train the present attempt
    EVALUATE = "evaluate"  # compare its newest policy with the thresholds, in fresh episodes
    ADVANCE = "advance"  # evaluate the earlier stages again
    REGRESS = "regress"  # return to the stage before
    FAIL = "fail"
    DONE = "done"


ENDED = (Phase.FAIL, Phase.DONE)


class StageRules(NamedTuple):
    """How often a stage is tried, and what follows its last attempt."""

    attempts: int
    regresses: bool  # otherwise the curriculum stops


class Rules(NamedTuple):
    """What the state machine must know of a curriculum."""

    stages: tuple[StageRules, ...]
    most_regressions: int


class State(NamedTuple):
    """Where a curriculum stands; everything that a resumed process must know."""

    runs: tuple[int, ...]  # number of runs begun in each stage
    phase: Phase = Phase.ENTER
    stage: int = 0  # index
    attempt: int = 1  # of this visit of the stage
    confirmations: int = 0  # of this visit
    attempt_confirmations: int = 0  # of this attempt
    is_over: bool = False  # whether the attempt has used all of its env steps
    regressions: int = 0
    # The stage and number of the run whose newest learner the next attempt continues; None at the
    # start.
    source: tuple[int, int] | None = None
    source_score: Score | None = None  # in this visit of the stage

    @property
    def run(self) -> tuple[int, int]:
        """The stage (index) and the number (from 1) of the newest run of the present stage."""
        return self.stage, self.runs[self.stage]


class Entered(NamedTuple):
    """The stage and its learner were checked."""


class Trained(NamedTuple):
    """A training ended: with its last env step, or because an evaluation looked good enough."""

    is_over: bool


class Evaluated(NamedTuple):
    """The newest policy was evaluated in fresh episodes."""

    passed: bool
    score: Score


class Rechecked(NamedTuple):
    """The earlier stages were evaluated again."""


class Regressed(NamedTuple):
    """The return to the stage before was reported."""


Event = Entered | Trained | Evaluated | Rechecked | Regressed


class ImpossibleEventError(ValueError):
    """The event cannot follow in this state."""


def initial_state(rules: Rules) -> State:
    """Returns the state before the first stage."""
    return State(runs=(0,) * len(rules.stages))


def may_end_early(state: State) -> bool:
    """Whether a training may end before its last env step."""
    return state.attempt_confirmations < MOST_CONFIRMATIONS


def next_state(rules: Rules, state: State, event: Event) -> State:
    """Returns the state after an event; raises ImpossibleEventError if it cannot happen now."""
    match event, state.phase:
        case Entered(), Phase.ENTER:
            runs = tuple(n + (stage == state.stage) for stage, n in enumerate(state.runs))
            return state._replace(
                phase=Phase.TRAIN, runs=runs, is_over=False, attempt_confirmations=0
            )
        case Trained(is_over), Phase.TRAIN if is_over or may_end_early(state):
            return state._replace(phase=Phase.EVALUATE, is_over=is_over)
        case Evaluated(), Phase.EVALUATE:
            return _evaluated(rules, state, event)
        case Rechecked(), Phase.ADVANCE:
            if state.stage + 1 == len(rules.stages):
                return state._replace(phase=Phase.DONE)
            return _at_stage(state, state.stage + 1)
        case Regressed(), Phase.REGRESS:
            return _at_stage(state, state.stage - 1)
    raise ImpossibleEventError(f"{event} cannot follow in the phase {state.phase}")


def _evaluated(rules: Rules, state: State, event: Evaluated) -> State:
    state = state._replace(
        confirmations=state.confirmations + 1,
        attempt_confirmations=state.attempt_confirmations + 1,
    )
    if event.passed:
        return state._replace(phase=Phase.ADVANCE, source=state.run, source_score=None)
    if not state.is_over:
        return state._replace(phase=Phase.TRAIN)
    if state.source_score is None or event.score >= state.source_score:
        # An attempt that made the policy worse is not continued.
        state = state._replace(source=state.run, source_score=event.score)
    stage = rules.stages[state.stage]
    if state.attempt < stage.attempts:
        return state._replace(phase=Phase.ENTER, attempt=state.attempt + 1)
    may_regress = stage.regresses and state.stage > 0
    if may_regress and state.regressions < rules.most_regressions:
        return state._replace(phase=Phase.REGRESS, regressions=state.regressions + 1)
    return state._replace(phase=Phase.FAIL)


def _at_stage(state: State, stage: int) -> State:
    """Returns the state at the beginning of a visit of a stage."""
    return state._replace(
        phase=Phase.ENTER,
        stage=stage,
        attempt=1,
        confirmations=0,
        attempt_confirmations=0,
        is_over=False,
        source_score=None,
    )
