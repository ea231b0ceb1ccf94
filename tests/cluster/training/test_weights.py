"""Which blocks come too late to learn from."""

from cluster.training.weights import LagLimit


def test_a_block_older_than_the_limit_is_dropped_and_counted():
    limit = LagLimit(100)
    assert not limit.is_too_old(version=0, newest=100, blocks_in_flight=1)
    assert limit.is_too_old(version=0, newest=101, blocks_in_flight=1)
    assert limit.dropped == 1


def test_without_a_limit_it_is_four_times_what_is_in_flight():
    limit = LagLimit(None)
    for _ in range(10):
        limit.learned(8)
    assert not limit.is_too_old(version=0, newest=4 * 3 * 8, blocks_in_flight=3)
    assert limit.is_too_old(version=0, newest=4 * 3 * 8 + 1, blocks_in_flight=3)


def test_blocks_of_a_future_that_was_given_up_are_not_old():
    assert not LagLimit(1).is_too_old(version=500, newest=100, blocks_in_flight=1)
