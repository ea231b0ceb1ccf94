"""What the evaluations of all policies on one data set share, and the fit of one policy."""

from typing import NamedTuple

import numpy as np

from rlcar.errors import DatasetError
from rlcar.evaluation.off_policy import fitted_q, support
from rlcar.evaluation.off_policy.fitted_q import FittedQ, FittedQSettings, Transitions
from rlcar.evaluation.off_policy.logged import (
    Logged,
    discounted_returns,
    held_out_episodes,
    rows_of,
)
from rlcar.evaluation.off_policy.policies import PolicyActions

_INPUT_LIMIT = 10.0  # of a standardised input


class Prepared(NamedTuple):
    """Recorded episodes, their standardised states, and the episodes of each member."""

    logged: Logged
    settings: FittedQSettings
    state: np.ndarray  # [M, S] standardised
    next_state: np.ndarray  # [M, S]
    returns: np.ndarray  # [M]
    bounds: fitted_q.Bounds
    fold: np.ndarray  # [E] the member that learns nothing from the episode
    member_episodes: np.ndarray  # [K, E] a bootstrap sample of its episodes for each member
    support: support.Support
    seed: int


def prepare(logged: Logged, settings: FittedQSettings, seed: int) -> Prepared:
    """Samples the episodes, and finds similar states among them."""
    state, next_state = _states(logged)
    returns = discounted_returns(logged, settings.discount)
    fold, member_episodes = _samples(logged.episodes, settings.members, seed)
    found = support.make_support(
        logged.observation,
        logged.next_observation,
        logged.action,
        logged.bounds,
        held_out_episodes(logged.episodes, seed),
        seed=seed,
    )
    return Prepared(
        logged,
        settings,
        state,
        next_state,
        returns,
        fitted_q.value_bounds(logged.reward, settings.discount),
        fold,
        member_episodes,
        found,
        seed,
    )


def _samples(episodes: int, members: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the fold of each episode `[E]`, and the episodes `[K, E]` of each member.

    Member k draws from the episodes outside of fold k, with replacement. Fold k tests it.
    """
    random = np.random.default_rng(seed)
    fold = random.permutation(np.arange(episodes) % members)
    samples = [random.choice(np.flatnonzero(fold != member), episodes) for member in range(members)]
    return fold, np.stack(samples)


def fit(prepared: Prepared, actions: PolicyActions, is_used: np.ndarray | None = None) -> FittedQ:
    """Learns the values of a policy from the rows `is_used [M]`, by default from all."""
    logged = prepared.logged
    transitions = Transitions(
        inputs(prepared.state, logged.action),
        inputs(prepared.next_state, actions.next_action),
        logged.reward,
        (~logged.is_terminal).astype(np.float32),
    )
    start = inputs(prepared.state[logged.starts], actions.action[logged.starts])
    return fitted_q.fit(
        transitions,
        _member_rows(prepared, is_used),
        start,
        prepared.returns,
        prepared.bounds,
        prepared.settings,
        prepared.seed,
    )


def member_means(prepared: Prepared, start_values: np.ndarray) -> np.ndarray:
    """Averages values `[K, E]` of starts over the episodes of each member's sample."""
    return np.take_along_axis(start_values, prepared.member_episodes, axis=1).mean(axis=1)


def inputs(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Returns what a network sees of states `[M, S]` and actions `[M, A]`."""
    return np.concatenate([state, action], axis=1).astype(np.float32)


def _member_rows(prepared: Prepared, is_used: np.ndarray | None) -> np.ndarray:
    """Returns as many rows `[K, M]` for each member, from its sample of the episodes."""
    random = np.random.default_rng(prepared.seed + 1)
    rows = []
    for episodes in prepared.member_episodes:
        own = rows_of(prepared.logged, episodes)
        if is_used is not None:
            own = own[is_used[own]]
        if not len(own):
            raise DatasetError(
                "the recorded episodes end after one step without a terminal state, so nothing "
                "tells what follows: record longer episodes"
            )
        rows.append(random.choice(own, len(prepared.logged.reward)))
    return np.stack(rows)


def _states(logged: Logged) -> tuple[np.ndarray, np.ndarray]:
    """Returns the standardised states `[M, S]` before and after each transition.

    An observation rarely tells everything. Two numbers that are known at every step say more: the
    action before, which may still have to take effect, and the sum of the rewards so far, which
    tells how far the episode has come. That sum is limited to what is known to go on: beyond it,
    as after a truncated end, the networks would extrapolate.
    """
    earned, following_earned = _limited_sums(logged)
    state = np.concatenate([logged.observation, logged.previous_action, earned[:, None]], axis=1)
    following = np.concatenate(
        [logged.next_observation, logged.action, following_earned[:, None]], axis=1
    )
    mean, deviation = state.mean(axis=0), state.std(axis=0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    first, second = (
        np.clip((array - mean) / deviation, -_INPUT_LIMIT, _INPUT_LIMIT).astype(np.float32)
        for array in (state, following)
    )
    return first, second


def _limited_sums(logged: Logged) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sums of the rewards `[M]` before and after each step, limited to known ones."""
    earned = logged.earned
    last = logged.bounds[1:] - 1
    is_known = np.ones(len(earned), bool)
    is_known[last] = logged.is_terminal[last]
    low, high = earned.min(where=is_known, initial=0.0), earned.max(where=is_known, initial=0.0)
    return np.clip(earned, low, high), np.clip(earned + logged.reward, low, high)
