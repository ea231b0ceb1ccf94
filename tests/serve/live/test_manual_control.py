"""One driver at a time, and the brake when no input arrives."""

import numpy as np
import pytest

from serve.live.manual_control import DEAD_MAN_S, ControlTakenError, ManualControl


@pytest.fixture
def control(clock):
    return ManualControl(clock)


def test_a_second_driver_waits_until_the_first_leaves(control):
    assert control.take("ann", is_connected=True)
    with pytest.raises(ControlTakenError, match="somebody else drives"):
        control.take("bob", is_connected=True)
    assert not control.release("bob")
    assert control.release("ann")
    assert control.take("bob", is_connected=True)


def test_taking_control_again_changes_nothing(control):
    control.take("ann", is_connected=True)
    assert not control.take("ann", is_connected=True)


def test_half_a_second_without_input_brakes_straight_on(control, clock):
    control.take("ann", is_connected=True)
    control.steer(0.5, 1.0)
    clock.now_s += 0.9 * DEAD_MAN_S
    np.testing.assert_array_equal(control.action(), np.float32([0.5, 1.0]))
    clock.now_s += 0.2 * DEAD_MAN_S
    np.testing.assert_array_equal(control.action(), [0.0, -1.0])
    assert control.is_braking


def test_a_new_driver_does_not_inherit_the_pedals(control):
    control.take("ann", is_connected=True)
    control.steer(1.0, 1.0)
    control.release("ann")
    control.take("bob", is_connected=True)
    np.testing.assert_array_equal(control.action(), [0.0, -1.0])


def test_a_page_that_does_nothing_for_minutes_may_be_replaced(control, clock):
    control.take("ann", is_connected=True)
    clock.now_s += 60.0
    with pytest.raises(ControlTakenError):
        control.take("bob", is_connected=True)
    clock.now_s += 61.0
    assert control.take("bob", is_connected=True)


def test_a_request_without_a_connection_keeps_control_for_seconds_only(control, clock):
    control.take("request:10.0.0.1", is_connected=False)
    clock.now_s += 4.0
    with pytest.raises(ControlTakenError):
        control.take("bob", is_connected=True)
    clock.now_s += 2.0
    assert control.take("bob", is_connected=True)
