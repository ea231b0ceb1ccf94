"""Cadence objects."""

from rlcar.system.when import Every, EverySeconds


def test_every_is_true_at_the_start_and_once_in_each_period():
    should = Every(10)
    assert [count for count in range(31) if should(count)] == [0, 10, 20, 30]


def test_every_does_not_make_up_for_periods_that_were_jumped_over():
    should = Every(10)
    assert [count for count in (0, 37, 38, 39, 40, 41) if should(count)] == [0, 37, 40]


def test_every_can_start_late():
    should = Every(10, next_at=15)
    assert [count for count in range(31) if should(count)] == [15, 20, 30]


def test_every_seconds_waits_for_its_period_after_each_time():
    times_s = iter((100.0, 100.0, 104.9, 105.0, 105.1, 112.0, 116.9, 117.0))
    should = EverySeconds(5.0, clock=lambda: next(times_s))
    assert [should() for _ in range(7)] == [False, False, True, False, True, False, True]
