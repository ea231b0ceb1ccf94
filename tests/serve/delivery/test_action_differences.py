"""All numbers of an action count in the comparison of a shadow, the first as the last."""

import numpy as np
import pytest

from serve.delivery.action_differences import add_differences, change_of
from serve.delivery.counts import ShadowCounts

SIZE = 6


def counted(ours, theirs):
    """Returns what one pair of actions of six numbers counts that differ in number `place`."""
    found = set()
    for place in range(SIZE):
        candidate, sent = np.full((1, SIZE), 0.5), np.full((1, SIZE), 0.5)
        candidate[0, place], sent[0, place] = ours, theirs
        counts = ShadowCounts()
        add_differences(counts, candidate, sent)
        found.add((counts.pairs, counts.differing, counts.sign_flips, counts.saturated))
    (only,) = found  # the place makes no difference
    return only


@pytest.mark.parametrize(
    ("ours", "theirs", "differing", "sign_flips", "saturated"),
    [
        (0.3, 0.3, 0, 0, 0),
        (0.35, 0.3, 0, 0, 0),
        (0.45, 0.3, 1, 0, 0),
        (-0.06, 0.06, 1, 1, 0),
        (-0.04, 0.04, 0, 0, 0),  # on no side
        (1.0, 1.0, 0, 0, 0),  # both at full throttle
        (1.0, 0.95, 0, 0, 1),
        (-1.0, 1.0, 1, 1, 1),
    ],
)
def test_each_number_of_an_action_counts(ours, theirs, differing, sign_flips, saturated):
    assert counted(ours, theirs) == (1, differing, sign_flips, saturated)


def test_an_action_counts_once_however_many_of_its_numbers_differ():
    counts = ShadowCounts()
    add_differences(
        counts, np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[-1.0, -1.0], [0.0, 0.0]])
    )
    add_differences(counts, np.zeros((1, 2)), np.zeros((1, 2)))
    assert counts == ShadowCounts(pairs=3, differing=1, sign_flips=1, saturated=1)


def test_a_change_is_that_of_the_number_that_changes_most():
    last, action = np.zeros((3, 2)), np.array([[0.1, -0.4], [0.3, 0.2], [1.0, 1.0]])
    is_first = np.array([False, False, True])
    assert change_of(action, last, is_first) == pytest.approx(0.4 + 0.3)
