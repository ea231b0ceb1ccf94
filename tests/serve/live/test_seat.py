"""One driver at a time, with a hand on the wheel."""

import numpy as np
import pytest

from serve.live.seat import DEAD_MAN_S, DriverSeat, TakenError


@pytest.fixture
def seat(clock):
    return DriverSeat(clock)


def test_a_second_driver_waits_until_the_first_leaves(seat):
    assert seat.take("ann", is_connected=True)
    with pytest.raises(TakenError, match="somebody else drives"):
        seat.take("bob", is_connected=True)
    assert not seat.leave("bob")
    assert seat.leave("ann")
    assert seat.take("bob", is_connected=True)


def test_taking_the_wheel_again_changes_nothing(seat):
    seat.take("ann", is_connected=True)
    assert not seat.take("ann", is_connected=True)


def test_half_a_second_without_input_brakes_straight_on(seat, clock):
    seat.take("ann", is_connected=True)
    seat.steer(0.5, 1.0)
    clock.now_s += 0.9 * DEAD_MAN_S
    np.testing.assert_array_equal(seat.action(), np.float32([0.5, 1.0]))
    clock.now_s += 0.2 * DEAD_MAN_S
    np.testing.assert_array_equal(seat.action(), [0.0, -1.0])
    assert seat.is_braking


def test_a_new_driver_does_not_inherit_the_pedals(seat):
    seat.take("ann", is_connected=True)
    seat.steer(1.0, 1.0)
    seat.leave("ann")
    seat.take("bob", is_connected=True)
    np.testing.assert_array_equal(seat.action(), [0.0, -1.0])


def test_a_page_that_does_nothing_for_minutes_may_be_replaced(seat, clock):
    seat.take("ann", is_connected=True)
    clock.now_s += 60.0
    with pytest.raises(TakenError):
        seat.take("bob", is_connected=True)
    clock.now_s += 61.0
    assert seat.take("bob", is_connected=True)


def test_a_request_without_a_connection_keeps_the_wheel_for_seconds_only(seat, clock):
    seat.take("request:10.0.0.1", is_connected=False)
    clock.now_s += 4.0
    with pytest.raises(TakenError):
        seat.take("bob", is_connected=True)
    clock.now_s += 2.0
    assert seat.take("bob", is_connected=True)
