"""The laws of a curriculum's state machine, whatever happens in which order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcar.training.curriculum.machine import (
    ENDED,
    MOST_CONFIRMATIONS,
    Entered,
    Evaluated,
    ImpossibleEventError,
    Phase,
    Rechecked,
    Regressed,
    Rules,
    StageRules,
    State,
    Trained,
    initial_state,
    may_end_early,
    next_state,
)

RULES = st.builds(
    Rules,
    st.lists(st.builds(StageRules, st.integers(1, 4), st.booleans()), min_size=1, max_size=5).map(
        tuple
    ),
    st.integers(0, 4),
)
SCORES = st.tuples(st.floats(0, 1), st.floats(-10, 10))


def _event(state: State, draw):
    match state.phase:
        case Phase.ENTER:
            return Entered()
        case Phase.TRAIN:
            return Trained(not may_end_early(state) or draw(st.booleans()))
        case Phase.EVALUATE:
            return Evaluated(draw(st.booleans()), draw(SCORES))
        case Phase.ADVANCE:
            return Rechecked()
        case Phase.REGRESS:
            return Regressed()


def _walk(rules, data):
    """Returns all states of one curriculum; fails if it does not end."""
    states = [initial_state(rules)]
    attempts = sum(stage.attempts for stage in rules.stages)
    longest = 4 * attempts * (rules.most_regressions + 1) * (MOST_CONFIRMATIONS + 2)
    while states[-1].phase not in ENDED:
        states.append(next_state(rules, states[-1], _event(states[-1], data.draw)))
        assert len(states) <= longest, "the curriculum does not end"
    return states


@settings(deadline=None, max_examples=40)
@given(RULES, st.data())
def test_every_curriculum_ends_and_bounds_its_attempts_and_regressions(rules, data):
    states = _walk(rules, data)
    for state in states:
        assert 1 <= state.attempt <= rules.stages[state.stage].attempts
        assert state.regressions <= rules.most_regressions
        assert state.attempt_confirmations <= MOST_CONFIRMATIONS + 1
        visits = 1 + rules.most_regressions
        assert state.runs[state.stage] <= visits * rules.stages[state.stage].attempts


@settings(deadline=None, max_examples=40)
@given(RULES, st.data())
def test_no_stage_is_skipped_and_each_advance_follows_a_passed_evaluation(rules, data):
    states = _walk(rules, data)
    for before, after in zip(states, states[1:], strict=False):
        if after.stage > before.stage:
            assert (before.phase, after.stage) == (Phase.ADVANCE, before.stage + 1)
        if after.stage < before.stage:
            assert (before.phase, after.stage) == (Phase.REGRESS, before.stage - 1)
        if after.phase is Phase.ADVANCE:
            assert before.phase is Phase.EVALUATE
    if states[-1].phase is Phase.DONE:
        assert states[-1].stage == len(rules.stages) - 1
        assert all(runs > 0 for runs in states[-1].runs)


@settings(deadline=None, max_examples=40)
@given(RULES, st.data())
def test_an_attempt_continues_a_run_that_exists_and_only_the_first_has_none(rules, data):
    states = _walk(rules, data)
    for state in states:
        if state.source is None:
            assert sum(state.runs) <= 1
        else:
            stage, number = state.source
            assert 1 <= number <= state.runs[stage]


@settings(deadline=None, max_examples=40)
@given(RULES, st.data())
def test_events_of_another_phase_are_refused(rules, data):
    states = _walk(rules, data)
    events = [Entered(), Trained(True), Evaluated(True, (1.0, 0.0)), Rechecked(), Regressed()]
    for state in states:
        possible = [event for event in events if _is_possible(rules, state, event)]
        assert len(possible) == (state.phase not in ENDED)


def _is_possible(rules, state, event):
    try:
        next_state(rules, state, event)
    except ImpossibleEventError:
        return False
    return True


def _after(rules, *events):
    state = initial_state(rules)
    for event in events:
        state = next_state(rules, state, event)
    return state


def test_a_worse_attempt_is_not_continued():
    rules = Rules((StageRules(3, regresses=False),), 0)
    first = (Entered(), Trained(True), Evaluated(False, (0.4, 1.0)))
    worse = (Entered(), Trained(True), Evaluated(False, (0.1, 9.0)))
    better = (Entered(), Trained(True), Evaluated(False, (0.5, 0.0)))
    assert _after(rules, *first, *worse).source == (0, 1)
    assert _after(rules, *first, *better).source == (0, 2)


def test_the_first_stage_cannot_regress():
    rules = Rules((StageRules(1, regresses=True),), 3)
    assert _after(rules, Entered(), Trained(True), Evaluated(False, (0, 0))).phase is Phase.FAIL


def test_after_its_last_attempt_a_stage_regresses_or_stops():
    passes = (Entered(), Trained(True), Evaluated(True, (1, 1)), Rechecked())
    fails = (Entered(), Trained(True), Evaluated(False, (0, 0)))
    stops = Rules((StageRules(1, True), StageRules(1, False)), 3)
    assert _after(stops, *passes, *fails).phase is Phase.FAIL
    regresses = Rules((StageRules(1, True), StageRules(1, True)), 1)
    state = _after(regresses, *passes, *fails, Regressed())
    assert (state.phase, state.stage, state.regressions) == (Phase.ENTER, 0, 1)
    assert state.source == (1, 1)  # the learner goes on, in an easier stage
    assert _after(regresses, *passes, *fails, Regressed(), *passes, *fails).phase is Phase.FAIL


def test_a_training_that_was_confirmed_too_often_uses_all_of_its_env_steps():
    rules = Rules((StageRules(1, False),), 0)
    state = _after(rules, Entered())
    for _ in range(MOST_CONFIRMATIONS):
        state = next_state(rules, state, Trained(is_over=False))
        state = next_state(rules, state, Evaluated(False, (0.5, 0.0)))
        assert state.phase is Phase.TRAIN
    with pytest.raises(ImpossibleEventError):
        next_state(rules, state, Trained(is_over=False))
    assert next_state(rules, state, Trained(is_over=True)).phase is Phase.EVALUATE
