import math

import numpy as np
import pytest

from rlcar.evaluation.off_policy.ranking import rank_correlation, regret_at

TRUE = np.array([10.0, 8.0, 6.0, 4.0])


def test_rank_correlation_by_hand():
    # Ranks 2 1 3 4 against 1 2 3 4: 1 - 6 (1 + 1) / (4 (16 - 1)) = 0.8.
    assert rank_correlation(np.array([7.0, 9.0, 3.0, 1.0]), TRUE) == pytest.approx(0.8)
    assert rank_correlation(-TRUE, TRUE) == pytest.approx(-1.0)


def test_equal_estimates_rank_nothing():
    assert math.isnan(rank_correlation(np.ones(4), TRUE))


def test_regret_is_the_loss_by_choosing_among_the_k_highest_estimates():
    estimated = np.array([1.0, 2.0, 9.0, 5.0])
    assert regret_at(1, estimated, TRUE) == 4.0
    assert regret_at(2, estimated, TRUE) == 4.0
    assert regret_at(3, estimated, TRUE) == 2.0
    assert regret_at(4, estimated, TRUE) == 0.0
