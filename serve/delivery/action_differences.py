"""Compares the actions that a shadowed candidate would have given with those that were sent.

All numbers of an action count, whatever they mean in the environment. Every number that a policy
answers is from -1 to 1, so the same limits hold for all of them: a difference of 0.1 is 5 % of the
range. Several numbers become one figure by the largest of them: a pair of actions differs if one
of its numbers does.
"""

import numpy as np

from serve.delivery.counts import ShadowCounts

DIFFERING = 0.1
SIGN_FLIP = 0.05  # smaller numbers are on no side
SATURATED = 0.99


def add_differences(counts: ShadowCounts, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Counts the pairs of the candidate's actions and those that were sent, `[N, A]` each.

    A limit that both are at is no saturation of the candidate: a car drives at full throttle, and a
    lander with its engine off, because that is good.
    """
    smaller = np.minimum(np.abs(ours), np.abs(theirs))
    is_other_side = (ours * theirs < 0.0) & (smaller > SIGN_FLIP)
    is_at_own_limit = (np.abs(ours) > SATURATED) & (np.sign(ours) * theirs <= SATURATED)
    counts.pairs += len(ours)
    counts.differing += _actions_with(np.abs(ours - theirs) > DIFFERING)
    counts.sign_flips += _actions_with(is_other_side)
    counts.saturated += _actions_with(is_at_own_limit)


def change_of(action: np.ndarray, last: np.ndarray, is_first: np.ndarray) -> float:
    """Returns the sum over cars of the largest change of a number since the last action.

    Both actions are `[N, A]`. Cars whose episode has begun (`is_first` `[N]`) have no last action.
    """
    return float(np.abs(action - last).max(axis=1)[~is_first].sum())


def _actions_with(is_so: np.ndarray) -> int:
    """Returns how many actions have a number for which `is_so` `[N, A]` holds."""
    return int(is_so.any(axis=1).sum())
