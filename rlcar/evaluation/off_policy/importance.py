"""Importance sampling and the doubly robust estimator, on plain arrays.

Arrays of episodes are `[E, T]`, padded after the end of an episode with reward 0 and ratio 1 (log
ratio 0), so that an episode keeps its last weight. The weight of step t is the product of the
ratios of the steps 0 to t. All estimators divide by the sum of the weights: that keeps the
variance bounded, at the price of a bias that vanishes with the number of episodes.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

_MOST_LOG_RATIO = 50.0  # exp of it is finite, and one such step decides alone


class PaddedEpisodes(NamedTuple):
    """E episodes of at most T steps; values only for the doubly robust estimator."""

    log_ratio: np.ndarray  # [E, T] log of policy over behaviour; minus infinity: never chosen
    reward: np.ndarray  # [E, T]
    action_value: np.ndarray | None = None  # [E, T] Q(s_t, a_t); 0 after the end
    state_value: np.ndarray | None = None  # [E, T + 1] V(s_t) of the policy; 0 after a terminal


def pad(values: np.ndarray, bounds: np.ndarray, steps: int | None = None) -> np.ndarray:
    """Returns flat values `[M]` as `[E, T]` with 0 after the end of each episode."""
    length = np.diff(bounds)
    padded = np.zeros((len(length), steps or int(length.max())))
    is_step = np.arange(padded.shape[1]) < length[:, None]
    padded[is_step] = values
    return padded


def log_ratios(
    policy_action: np.ndarray,
    action: np.ndarray,
    behaviour_logp: np.ndarray,
    *,
    is_discrete: bool,
    bandwidth: float = 0.1,
) -> np.ndarray:
    """The log ratio `[M]` of a deterministic policy to the behaviour policy.

    A deterministic policy chooses a discrete action with probability 1 or 0. For continuous actions
    its density is replaced by a normal density around its action with a standard deviation of
    `bandwidth`; without such a kernel, every ratio would be 0 (Kallus and Zhou 2018). The density
    is truncated to [-1, 1], because there are no actions beyond.
    """
    if is_discrete:
        is_same = policy_action.argmax(axis=1) == action.argmax(axis=1)
        log_policy = np.where(is_same, 0.0, -np.inf)
    else:
        scaled = (action.astype(np.float64) - policy_action) / bandwidth
        normaliser = np.log(bandwidth) + 0.5 * np.log(2.0 * np.pi)
        centre = np.asarray(policy_action, np.float64)
        mass = ndtr((1.0 - centre) / bandwidth) - ndtr((-1.0 - centre) / bandwidth)
        log_policy = (-0.5 * scaled**2 - normaliser - np.log(mass)).sum(axis=1)
    return np.minimum(log_policy - behaviour_logp, _MOST_LOG_RATIO)


def weighted_importance(episodes: PaddedEpisodes, discount: float) -> float:
    """V = sum_e w_e G_e / sum_e w_e, with the weight of the whole episode."""
    log_weight = episodes.log_ratio.sum(axis=1)
    weight = _normalised(log_weight[:, None])[:, 0]
    returns = (episodes.reward * _discounts(episodes, discount)).sum(axis=1)
    return float(weight @ returns)


def per_decision_importance(episodes: PaddedEpisodes, discount: float) -> float:
    """V = sum_t discount^t sum_e w_et r_et / sum_e w_et (Precup et al. 2000)."""
    weight = _normalised(np.cumsum(episodes.log_ratio, axis=1))
    return float((weight * episodes.reward * _discounts(episodes, discount)).sum())


def doubly_robust(episodes: PaddedEpisodes, discount: float) -> float:
    """Corrects the values of a model by weighted temporal differences.

    V = mean_e V(s_e0) + sum_t discount^t sum_e w_et (r_et + discount V(s_et+1) - Q(s_et, a_et)),
    with w_et divided by its sum over the episodes (Thomas and Brunskill 2016, without the mixing).
    """
    value, action_value = episodes.state_value, episodes.action_value
    assert value is not None, "the doubly robust estimator needs values"
    assert action_value is not None, "the doubly robust estimator needs values"
    weight = _normalised(np.cumsum(episodes.log_ratio, axis=1))
    difference = episodes.reward + discount * value[:, 1:] - action_value
    corrections = (weight * difference * _discounts(episodes, discount)).sum()
    return float(value[:, 0].mean() + corrections)


def effective_episodes(log_ratio: np.ndarray) -> float:
    """Returns Kish's effective number of episodes, (sum w)^2 / sum w^2, at the last step."""
    weight = _normalised(log_ratio.sum(axis=1)[:, None])[:, 0]
    total = np.square(weight).sum()
    return float(1.0 / total) if total > 0.0 else 0.0


def choose(episodes: PaddedEpisodes, index: np.ndarray) -> PaddedEpisodes:
    """Returns the episodes with these indices, for a bootstrap over episodes."""
    values, states = episodes.action_value, episodes.state_value
    return PaddedEpisodes(
        episodes.log_ratio[index],
        episodes.reward[index],
        None if values is None else values[index],
        None if states is None else states[index],
    )


def _discounts(episodes: PaddedEpisodes, discount: float) -> np.ndarray:
    return discount ** np.arange(episodes.reward.shape[1])


def _normalised(log_weight: np.ndarray) -> np.ndarray:
    """Returns weights that sum to 1 over the episodes at each step; 0 if all of them are 0."""
    highest = log_weight.max(axis=0)
    weight = np.exp(log_weight - np.where(np.isfinite(highest), highest, 0.0))
    total = weight.sum(axis=0)
    return weight / np.where(total > 0.0, total, 1.0)
