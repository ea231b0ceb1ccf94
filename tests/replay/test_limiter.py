"""The limiter keeps the ratio of sampled to inserted steps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcar.replay import SamplesPerInsert


def test_the_first_steps_only_fill_the_memory():
    limiter = SamplesPerInsert(4.0, 100)
    limiter.inserted(99)
    assert limiter.updates_due(1) == 0
    limiter.inserted(1)
    assert limiter.updates_due(1) == 0
    limiter.inserted(6)
    assert limiter.updates_due(24) == 1
    assert limiter.updates_due(25) == 0
    assert limiter.updates_due(10) == 2


def test_updates_are_due_until_the_ratio_is_reached():
    limiter = SamplesPerInsert(2.0, 0)
    limiter.inserted(25)
    updates = 0
    while limiter.updates_due(10):
        limiter.sampled(10)
        updates += 1
    assert updates == 5


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ratio_that_never_samples_is_refused(ratio):
    with pytest.raises(ValueError, match="samples_per_insert = .* will deadlock, because"):
        SamplesPerInsert(ratio, 0)


def test_an_update_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        SamplesPerInsert(2.0, 0).updates_due(0)


@pytest.mark.parametrize("call", ["inserted", "sampled"])
def test_counts_never_go_back(call):
    limiter = SamplesPerInsert(2.0, 0)
    with pytest.raises(ValueError, match="cannot be negative"):
        getattr(limiter, call)(-1)


def test_a_restored_limiter_goes_on_where_the_other_was():
    one = SamplesPerInsert(3.0, 10)
    one.inserted(25)
    one.sampled(7)
    other = SamplesPerInsert(3.0, 10)
    other.restore(one.state())
    assert other.state() == {"inserted": 25, "sampled": 7}
    assert other.updates_due(1) == one.updates_due(1) == 38


@settings(max_examples=100, deadline=None)
@given(
    ratio=st.floats(0.01, 100.0),
    min_env_steps=st.integers(0, 500),
    blocks=st.lists(st.integers(1, 200), max_size=60),
    steps_per_update=st.integers(1, 5000),
)
def test_after_each_block_less_than_one_update_is_owed_and_never_less_than_none(
    ratio, min_env_steps, blocks, steps_per_update
):
    limiter = SamplesPerInsert(ratio, min_env_steps)
    for block in blocks:
        limiter.inserted(block)
        for _ in range(limiter.updates_due(steps_per_update)):
            limiter.sampled(steps_per_update)
        counts = limiter.state()
        owed = ratio * max(0, counts["inserted"] - min_env_steps) - counts["sampled"]
        slack = 1e-9 * (owed + counts["sampled"]) + 1e-9
        assert -slack <= owed <= steps_per_update + slack
