"""When the rewards of reported laps are low: by Welch's test, at a level for the looks of a day."""

import numpy as np
import pytest
from scipy import stats

from serve.observing.drift_kpis import LEVEL, compare_rewards


def test_rewards_are_low_exactly_where_welchs_test_and_the_shortfall_say_so():
    rng = np.random.default_rng(0)
    reference, usual = rng.normal(60.0, 4.0, 64), rng.normal(60.0, 6.0, 20)
    found = []
    for loss in np.linspace(0.0, 15.0, 60):
        rewards = usual - loss
        probability = stats.ttest_ind(
            rewards, reference, equal_var=False, alternative="less"
        ).pvalue
        finding = compare_rewards(rewards, reference)
        assert finding.is_low == (probability < LEVEL and finding.shortfall >= 0.1)
        found.append(finding.is_low)
    assert found[0] is False
    assert found[-1] is True


def test_the_looks_of_a_day_share_the_false_alarms():
    assert pytest.approx(0.05) == 8640 * 2 * LEVEL


def test_rewards_that_do_not_vary_are_compared_too():
    reference = np.full(24, 60.0)
    assert compare_rewards([50.0] * 20, reference).is_low
    assert not compare_rewards([55.0] * 20, reference).is_low
    assert not compare_rewards([60.0] * 20, reference).is_low
