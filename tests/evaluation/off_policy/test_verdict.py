import numpy as np
import pytest

from rlcar.evaluation.off_policy.verdict import Interval, interval_of_members, verdict_of


def test_interval_by_hand():
    # Mean 2, standard deviation 1, Student's quantile for two degrees of freedom 4.3027.
    interval = interval_of_members(np.array([1.0, 2.0, 3.0]), bias=-0.5)
    assert interval == pytest.approx((2.0, 2.0 - 4.8027, 2.0 + 4.8027), abs=1e-3)


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (Interval(2.0, 1.0, 3.0), "better"),
        (Interval(-2.0, -3.0, -1.0), "worse"),
        (Interval(1.0, -1.0, 3.0), "unknown"),
    ],
)
def test_the_whole_interval_decides(difference: Interval, verdict: str):
    assert verdict_of(difference, [])[0] == verdict


def test_a_failed_check_forbids_a_verdict():
    assert verdict_of(Interval(2.0, 1.0, 3.0), ["it is outside", "it moves"]) == (
        "unknown",
        "it is outside; it moves",
    )
