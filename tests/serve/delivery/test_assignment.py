"""Sessions are assigned to the versions of a rollout once, and everywhere in the same way."""

from hypothesis import given, settings
from hypothesis import strategies as st

from serve.delivery.assignment import is_canary, is_shadowed, place_of

NAMES = st.text(max_size=64)
WEIGHTS = st.floats(0.0, 100.0)


@settings(deadline=None)
@given(NAMES, NAMES, WEIGHTS, WEIGHTS)
def test_a_larger_weight_never_moves_a_session_back(rollout, session, one, other):
    low, high = sorted((one, other))
    assert not (is_canary(rollout, session, low) and not is_canary(rollout, session, high))
    assert not is_canary(rollout, session, 0.0)
    assert is_canary(rollout, session, 100.0)


def test_a_weight_is_a_share_of_the_sessions():
    names = [f"car-{number}" for number in range(5000)]
    share = sum(is_canary("r1", name, 10.0) for name in names) / len(names)
    assert abs(share - 0.1) < 0.015
    both = sum(is_canary("r1", name, 10.0) and is_canary("r2", name, 10.0) for name in names)
    assert both < 0.02 * len(names)  # other sessions go first in another rollout
    shadowed = [is_shadowed("r1", name, 50.0) for name in names if is_canary("r1", name, 50.0)]
    assert abs(sum(shadowed) / len(shadowed) - 0.5) < 0.05


def test_places_never_change():
    # Replicas of different versions of rlcar must agree, so a change needs a new journal format.
    assert [round(place_of("rollout", f"car-{number}"), 6) for number in range(3)] == [
        46.006322,
        75.968083,
        27.39859,
    ]
