"""The stream's binary messages."""

import struct

import numpy as np
import pytest

from serve.live.wire import (
    DREAM,
    DREAM_COLUMNS,
    LATENT,
    MANUAL,
    RUNNING,
    TICK,
    Pose,
    Tick,
    pack_dream,
    pack_latent,
    pack_tick,
)

POSE = Pose(100.0, 200.0, 350.0, 5.0, 0.25)


def _tick(**changes):
    tick = Tick(RUNNING + MANUAL, POSE, (0.5, -1.0), 12, 3.5, [0.1, 0.2, 0.3, 0.4, 0.5], None, None)
    return tick._replace(**changes)


def test_a_tick_is_a_head_and_its_numbers_in_order():
    packed = pack_tick(7, 1234.5, _tick())
    assert struct.unpack_from("<BBBBId", packed) == (TICK, RUNNING + MANUAL, 0, 0, 7, 1234.5)
    numbers = np.frombuffer(packed, "<f4", offset=16)
    wanted = [*POSE, 0.5, -1.0, 12, 3.5, 0.1, 0.2, 0.3, 0.4, 0.5]
    np.testing.assert_allclose(numbers, wanted, rtol=1e-6)


def test_a_rival_comes_before_a_ghost():
    ghost = POSE._replace(x_px=7.0)
    packed = pack_tick(0, 0.0, _tick(rival=(1.0, 2.0, 8.0), ghost=ghost))
    assert packed[2] == 3
    np.testing.assert_allclose(np.frombuffer(packed, "<f4", offset=16)[14:], [1, 2, 8, *ghost])


def test_a_counter_that_overflows_begins_again():
    assert struct.unpack_from("<I", pack_tick(2**32 + 5, 0.0, _tick()), 4) == (5,)


def test_a_dream_and_a_latent_state_say_their_shapes():
    steps = np.arange(3 * DREAM_COLUMNS, dtype=np.float32).reshape(3, DREAM_COLUMNS)
    dream = pack_dream(0, 0.0, steps)
    assert (dream[0], dream[1]) == (DREAM, 3)
    np.testing.assert_array_equal(np.frombuffer(dream, "<f4", offset=16), steps.ravel())
    latent = pack_latent(0, 0.0, np.array([[0.0, 1.0, 0.5], [2.0, -1.0, 0.0]]))
    assert latent[:3] == bytes([LATENT, 2, 3])
    assert latent[16:] == bytes([0, 255, 128, 255, 0, 0])


@pytest.mark.parametrize(("start", "end", "middle"), [(350.0, 10.0, 0.0), (10.0, 350.0, 0.0)])
def test_half_way_between_two_headings_is_the_short_way_round(start, end, middle):
    pose = POSE._replace(heading_deg=start).towards(POSE._replace(heading_deg=end), 0.5)
    assert pose.heading_deg % 360.0 == pytest.approx(middle)
    assert pose.x_px == POSE.x_px
