"""Estimates of a policy by importance weights, which are shown for comparison."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlcar.evaluation.off_policy import fitted_q, importance
from rlcar.evaluation.off_policy.fitted_q import FittedQ
from rlcar.evaluation.off_policy.policies import PolicyActions
from rlcar.evaluation.off_policy.prepared import Prepared, inputs
from rlcar.evaluation.off_policy.verdict import Interval

_RESAMPLES = 200
_FEW_EFFECTIVE_EPISODES = 10.0


def importance_estimates(
    prepared: Prepared, actions: PolicyActions, fitted: FittedQ
) -> dict[str, Any] | None:
    """Returns the estimates by importance weights; None if action probabilities are unknown."""
    logged = prepared.logged
    if not np.isfinite(logged.action_logp).all():
        return None
    log_ratio = importance.log_ratios(
        actions.action, logged.action, logged.action_logp, is_discrete=logged.is_discrete
    )
    episodes = _padded(prepared, actions, fitted, log_ratio)
    effective = importance.effective_episodes(episodes.log_ratio)
    estimators = {
        "weighted": importance.weighted_importance,
        "per_decision": importance.per_decision_importance,
        "doubly_robust": importance.doubly_robust,
    }
    random = np.random.default_rng(prepared.seed)
    resample = random.integers(logged.episodes, size=(_RESAMPLES, logged.episodes))
    return {
        "effective_episodes": effective,
        "has_enough_episodes": effective >= _FEW_EFFECTIVE_EPISODES,
        **{
            name: _bootstrapped(estimator, episodes, prepared.settings.discount, resample)
            for name, estimator in estimators.items()
        },
    }


def _padded(
    prepared: Prepared, actions: PolicyActions, fitted: FittedQ, log_ratio: np.ndarray
) -> importance.PaddedEpisodes:
    """Returns the episodes as `[E, T]`; after a truncated end, the estimate continues them."""
    logged = prepared.logged
    taken = fitted_q.action_values(fitted, inputs(prepared.state, logged.action)).mean(axis=0)
    chosen = fitted_q.action_values(fitted, inputs(prepared.state, actions.action)).mean(axis=0)
    last = logged.bounds[1:] - 1
    after = fitted_q.action_values(
        fitted, inputs(prepared.next_state[last], actions.next_action[last])
    ).mean(axis=0)
    steps = int(np.diff(logged.bounds).max())
    state_value = importance.pad(chosen, logged.bounds, steps + 1)
    state_value[np.arange(logged.episodes), np.diff(logged.bounds)] = np.where(
        logged.is_terminal[last], 0.0, after
    )
    return importance.PaddedEpisodes(
        importance.pad(log_ratio, logged.bounds),
        importance.pad(logged.reward, logged.bounds),
        importance.pad(taken, logged.bounds),
        state_value,
    )


def _bootstrapped(
    estimator: Callable[[importance.PaddedEpisodes, float], float],
    episodes: importance.PaddedEpisodes,
    discount: float,
    resample: Sequence[np.ndarray] | np.ndarray,
) -> dict[str, float]:
    """Returns an estimate with its percentile interval over resampled episodes."""
    values = [estimator(importance.choose(episodes, index), discount) for index in resample]
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(estimator(episodes, discount), float(low), float(high))._asdict()
