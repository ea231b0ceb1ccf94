"""Neither side starves, and the ratio holds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcar.replay import SamplesPerInsert


def test_the_first_steps_only_fill_the_memory():
    limiter = SamplesPerInsert(4.0, 100, max_ahead_env_steps=50, steps_per_update=10)
    limiter.inserted(99)
    assert not limiter.can_sample(1)
    limiter.inserted(1)
    assert limiter.updates_due(10) == 0
    limiter.inserted(6)
    assert limiter.updates_due(10) == 2
    assert limiter.can_sample(24)
    assert not limiter.can_sample(25)


def test_updates_are_due_until_the_ratio_is_reached():
    limiter = SamplesPerInsert(2.0, 0, max_ahead_env_steps=50, steps_per_update=10)
    limiter.inserted(25)
    updates = 0
    while limiter.updates_due(10):
        limiter.sampled(10)
        updates += 1
    assert updates == 5
    assert limiter.can_insert()


def test_simulators_wait_only_while_the_learner_is_further_behind_than_the_tolerance():
    limiter = SamplesPerInsert(2.0, 10, max_ahead_env_steps=20, steps_per_update=8)
    limiter.inserted(30)
    assert limiter.can_insert()
    limiter.inserted(1)
    assert not limiter.can_insert()
    limiter.sampled(1)
    assert not limiter.can_insert()
    limiter.sampled(1)
    assert limiter.can_insert()


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ratio_that_never_samples_is_refused(ratio):
    with pytest.raises(ValueError, match="this will deadlock because .* samples_per_insert"):
        SamplesPerInsert(ratio, 0, max_ahead_env_steps=10)


def test_an_update_larger_than_the_tolerance_is_refused_when_built_and_when_asked():
    expected = "this will deadlock because 21 steps at once need 10 new env steps.* stop 10 ahead"
    with pytest.raises(ValueError, match=expected):
        SamplesPerInsert(2.0, 0, max_ahead_env_steps=10, steps_per_update=21)
    limiter = SamplesPerInsert(2.0, 0, max_ahead_env_steps=10, steps_per_update=20)
    with pytest.raises(ValueError, match=expected):
        limiter.updates_due(21)


@pytest.mark.parametrize("call", ["inserted", "sampled"])
def test_counts_never_go_back(call):
    limiter = SamplesPerInsert(2.0, 0, max_ahead_env_steps=10)
    with pytest.raises(ValueError, match="cannot go back"):
        getattr(limiter, call)(-1)


def test_a_restored_limiter_goes_on_where_the_other_was():
    one = SamplesPerInsert(3.0, 10, max_ahead_env_steps=30)
    one.inserted(25)
    one.sampled(7)
    other = SamplesPerInsert(3.0, 10, max_ahead_env_steps=30)
    other.restore(one.state())
    assert (other.env_steps_inserted, other.steps_sampled) == (25, 7)
    assert other.updates_due(1) == one.updates_due(1) == 38


@settings(max_examples=100, deadline=None)
@given(
    ratio=st.floats(0.01, 100.0),
    min_env_steps=st.integers(0, 500),
    block=st.integers(1, 200),
    max_ahead=st.integers(0, 500),
    steps_per_update=st.integers(1, 5000),
    turns=st.lists(st.booleans(), max_size=60),
)
def test_never_do_both_sides_wait_and_the_ratio_holds(
    ratio, min_env_steps, block, max_ahead, steps_per_update, turns
):
    settings_ = {"max_ahead_env_steps": max_ahead, "steps_per_update": steps_per_update}
    if steps_per_update > ratio * max_ahead:
        with pytest.raises(ValueError, match="this will deadlock because"):
            SamplesPerInsert(ratio, min_env_steps, **settings_)
        return
    limiter = SamplesPerInsert(ratio, min_env_steps, **settings_)
    for learner_first in turns:
        may_sample = limiter.can_sample(steps_per_update)
        may_insert = limiter.can_insert()
        assert may_sample or may_insert
        assert may_sample == (limiter.updates_due(steps_per_update) > 0)
        if may_sample and (learner_first or not may_insert):
            limiter.sampled(steps_per_update)
        else:
            limiter.inserted(block)
        owed = ratio * max(0, limiter.env_steps_inserted - min_env_steps)
        slack = 1e-9 * owed + 1e-9
        assert limiter.steps_sampled <= owed + slack
        assert owed - limiter.steps_sampled <= ratio * (max_ahead + block) + slack
