"""A candidate passes only if it is better than the stable version beyond chance."""

import numpy as np
import pytest

from rlcar.gates.paired import PairedCosts, decide, paired_interval

LIMIT = 1000.0


def laps(rng, tracks=128, seeds=1, faster=0.0, crash_rate=0.03):
    """Costs of two versions: laps of about 280 steps, some of which end in a crash."""
    road = rng.uniform(230.0, 330.0, (tracks, 1))

    def one(gain):
        steps = road + rng.normal(0.0, 6.0, (tracks, seeds)) - gain
        return np.where(rng.random((tracks, seeds)) < crash_rate, LIMIT, steps)

    return PairedCosts(one(0.0), one(faster))


@pytest.mark.parametrize(
    ("crash_rate", "worlds", "seeds"), [(0.0, 1, 1), (0.03, 1, 1), (0.01, 1, 4), (0.03, 5, 1)]
)
def test_of_1000_equal_candidates_at_most_5_percent_pass(crash_rate, worlds, seeds):
    rng = np.random.default_rng(7)
    passed = 0
    for _ in range(1000):
        costs = {
            f"world {index}": laps(rng, seeds=seeds, crash_rate=crash_rate)
            for index in range(worlds)
        }
        passed += decide(costs, 0.0, "steps a lap").passed
    assert passed <= 50


def test_nearly_every_candidate_that_is_faster_passes():
    rng = np.random.default_rng(3)
    results = [decide({"classic": laps(rng, faster=5.0, crash_rate=0.0)}, 0.0, "steps")
               for _ in range(100)]  # fmt: skip
    assert sum(one.passed for one in results) >= 98
    assert "above 0" in results[0].reason
    assert results[0].figures["improvement"]["low"] > 0.0


def test_an_identical_candidate_passes_only_with_a_margin():
    same = np.full((8, 1), 280.0)
    costs = {"classic": PairedCosts(same, same)}
    assert not decide(costs, 0.0, "steps").passed
    assert decide(costs, 0.5, "steps").passed


def test_a_margin_admits_a_small_loss_and_no_larger_one():
    rng = np.random.default_rng(5)
    slower = laps(rng, faster=-4.0, crash_rate=0.0)
    assert decide({"classic": slower}, 8.0, "steps").passed
    refused = decide({"classic": slower}, 2.0, "steps")
    assert not refused.passed
    assert "worse in a world" in refused.reason


def test_a_loss_in_one_world_is_not_made_up_for_by_the_others():
    rng = np.random.default_rng(1)
    costs = {
        "classic": laps(rng, faster=60.0, crash_rate=0.0),
        "grand-prix-3": laps(rng, faster=-20.0, crash_rate=0.0),
    }
    result = decide(costs, 0.0, "steps a lap")
    assert result.figures["improvement"]["low"] > 0.0
    assert not result.passed
    assert "in grand-prix-3" in result.reason
    assert [one["is_worse"] for one in result.figures["worlds"].values()] == [False, True]


def test_the_interval_is_that_of_student():
    interval = paired_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert interval.mean == 2.5
    # s = 1.2910, t(0.975, 3) = 3.1824: 2.5 -+ 3.1824 * 1.2910 / 2
    assert interval.low == pytest.approx(0.4457, abs=1e-4)
    assert interval.high == pytest.approx(4.5543, abs=1e-4)


def test_costs_that_are_no_numbers_decide_nothing():
    costs = np.full((8, 1), 280.0)
    broken = costs.copy()
    broken[3] = np.nan
    with pytest.raises(ValueError, match="have no interval"):
        decide({"classic": PairedCosts(costs, broken)}, 0.0, "steps")
