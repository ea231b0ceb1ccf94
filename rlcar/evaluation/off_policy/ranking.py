"""Measures of a ranking of policies by estimates (Kiyohara et al. 2023, "SCOPE-RL")."""

import numpy as np
from scipy import stats


def rank_correlation(estimated: np.ndarray, true: np.ndarray) -> float:
    """Returns Spearman's correlation of the two rankings, -1 to 1; NaN if one has only ties."""
    _require_pairs(estimated, true)
    if np.ptp(estimated) == 0.0 or np.ptp(true) == 0.0:
        return float("nan")
    return float(stats.spearmanr(estimated, true).statistic)


def regret_at(k: int, estimated: np.ndarray, true: np.ndarray) -> float:
    """Returns how much the best policy is better than the best of the k highest estimates.

    regret@k = max_i V_i - max_{i in top k} V_i, where the top k are chosen by the estimates.
    """
    _require_pairs(estimated, true)
    top = np.argsort(-np.asarray(estimated), kind="stable")[:k]
    return float(np.max(true) - np.max(np.asarray(true)[top]))


def _require_pairs(estimated: np.ndarray, true: np.ndarray) -> None:
    assert np.shape(estimated) == np.shape(true), (np.shape(estimated), np.shape(true))
    assert np.size(true) > 0, "there is no policy to rank"
