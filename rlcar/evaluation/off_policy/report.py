"""Evaluates policies on recorded episodes: estimates, checks, warnings and verdicts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlcar.errors import DatasetError
from rlcar.evaluation.off_policy import fitted_q, importance, support
from rlcar.evaluation.off_policy.fitted_q import FittedQ, FittedQSettings, Transitions
from rlcar.evaluation.off_policy.logged import (
    Logged,
    discounted_returns,
    held_out_episodes,
    rows_of,
)
from rlcar.evaluation.off_policy.policies import PolicyActions
from rlcar.evaluation.off_policy.regions import Regions
from rlcar.evaluation.off_policy.verdict import Interval, interval_of_members, verdict_of

# Largest share of a policy's actions outside the support. Walks through the data depart from the
# policy's true path, so the share is not 0 for the drivers of the data themselves. In
# benchmarks/offline_evaluation.py with the seeds 0 and 1, on which this limit was chosen, it is at
# most 0.22 for supported and at least 0.37 for others.
_MOST_OUTSIDE = 0.25
_MOST_BIAS = 0.25  # of the behaviour's estimate, in standard deviations of the returns
# Largest share of the behaviour's return that an estimate has to add after truncated ends. Beyond,
# that return no longer tests the estimate.
_MOST_CONTINUED = 0.5
_INPUT_LIMIT = 10.0  # of a standardised input
FEWEST_EPISODES = 10  # of which a fifth is held out
_RESAMPLES = 200
_FEW_EFFECTIVE_EPISODES = 10.0

OnPolicy = Callable[[str], None]


class _Prepared(NamedTuple):
    """What the evaluations of all policies on one data set share."""

    logged: Logged
    settings: FittedQSettings
    state: np.ndarray  # [M, S] standardised
    next_state: np.ndarray  # [M, S]
    returns: np.ndarray  # [M]
    bounds: fitted_q.Bounds
    member_episodes: np.ndarray  # [K, E] a bootstrap sample of the episodes for each member
    support: support.Support
    regions: Regions | None
    seed: int


class _Behaviour(NamedTuple):
    """The policy that drove: its value is known, so it tests the estimator itself.

    The rewards after a truncated end are not recorded. There, the estimate itself continues the
    return, with the weight that the discount leaves to it.
    """

    fitted: FittedQ
    members: np.ndarray  # [K] estimates
    returns: np.ndarray  # [E] of the recorded episodes, continued after a truncated end
    continued_share: float  # mean weight of these continuations

    @property
    def observed(self) -> float:
        """The mean return of the recorded episodes."""
        return float(self.returns.mean())

    @property
    def bias(self) -> float:
        """How much the estimate is too high.

        An estimate that is too high by b makes the observed return too high by b times the share of
        the continuations, so the difference of both is smaller than b.
        """
        difference = float(self.members.mean()) - self.observed
        return difference / (1.0 - min(self.continued_share, _MOST_CONTINUED))


def evaluate(
    logged: Logged,
    policies: Mapping[str, PolicyActions],
    settings: FittedQSettings,
    *,
    regions: Regions | None = None,
    seed: int = 0,
    on_policy: OnPolicy = lambda name: None,
) -> dict[str, Any]:
    """Returns the report of all policies, as a tree for JSON.

    `on_policy` is called with the name of what is evaluated next. Policies with a number are
    ranked before those without. Raises DatasetError for fewer than 10 episodes.
    """
    require_enough(logged.episodes)
    on_policy("behaviour")
    prepared = _prepare(logged, settings, regions, seed)
    behaviour = _evaluate_behaviour(prepared)
    results = {}
    for name, actions in policies.items():
        on_policy(name)
        results[name] = _evaluate(prepared, behaviour, actions)
    order = sorted(results, key=lambda name: _rank_key(results[name]))
    return {
        "discount": settings.discount,
        "episodes": logged.episodes,
        "transitions": len(logged.reward),
        "behaviour": {
            "return": behaviour.observed,
            "highest_episode_return": float(behaviour.returns.max()),
            "continued_share": behaviour.continued_share,
            "estimate": float(behaviour.members.mean()),
            "bias": behaviour.bias,
            **_checks(behaviour.fitted),
        },
        "coverage": None if regions is None else regions.coverage(),
        "warnings": [] if regions is None else regions.warnings(),
        "policies": {name: results[name] for name in order},
    }


def require_enough(episodes: int) -> None:
    """Raises DatasetError if there are too few episodes for an estimate."""
    if episodes < FEWEST_EPISODES:
        raise DatasetError(
            f"{episodes} {'episode is' if episodes == 1 else 'episodes are'} too few to estimate a "
            f"policy from: record at least {FEWEST_EPISODES}, or use more with --transitions"
        )


def _rank_key(result: Mapping[str, Any]) -> tuple[bool, float]:
    estimate = result["estimate"]
    return estimate is None, 0.0 if estimate is None else -estimate["mean"]


def _prepare(
    logged: Logged, settings: FittedQSettings, regions: Regions | None, seed: int
) -> _Prepared:
    state, next_state = _states(logged)
    returns = discounted_returns(logged, settings.discount)
    random = np.random.default_rng(seed)
    member_episodes = random.integers(logged.episodes, size=(settings.members, logged.episodes))
    found = support.make_support(
        logged.observation,
        logged.next_observation,
        logged.action,
        logged.bounds,
        held_out_episodes(logged.episodes, seed),
        seed=seed,
    )
    return _Prepared(
        logged,
        settings,
        state,
        next_state,
        returns,
        fitted_q.value_bounds(logged.reward, settings.discount),
        member_episodes,
        found,
        regions,
        seed,
    )


def _evaluate_behaviour(prepared: _Prepared) -> _Behaviour:
    """Evaluates the policy that drove by the same method as the others."""
    logged = prepared.logged
    last = logged.bounds[1:] - 1
    following = np.roll(logged.action, -1, axis=0)
    actions = PolicyActions(logged.action, following)
    # The action after a truncated episode is unknown.
    is_known = np.ones(len(logged.reward), bool)
    is_known[last] = logged.is_terminal[last]
    fitted = _fit(prepared, actions, is_known)
    values = fitted_q.action_values(fitted, _inputs(prepared.state, logged.action))
    is_cut = ~logged.is_terminal[last]
    # A truncated episode would have earned more: the estimate of its last step continues it.
    steps = np.diff(logged.bounds) - 1
    missing = np.where(is_cut, values.mean(axis=0)[last] - logged.reward[last], 0.0)
    weight = prepared.settings.discount**steps
    returns = prepared.returns[logged.starts] + weight * missing
    members = _member_means(prepared, values[:, logged.starts])
    return _Behaviour(fitted, members, returns, float((is_cut * weight).mean()))


def _evaluate(prepared: _Prepared, behaviour: _Behaviour, actions: PolicyActions) -> dict[str, Any]:
    logged = prepared.logged
    outside = support.find_outside(
        prepared.support,
        logged.action,
        actions.action,
        actions.next_action,
        logged.is_terminal,
        discount=prepared.settings.discount,
        seed=prepared.seed,
    )
    fitted = _fit(prepared, actions)
    start_values = fitted_q.action_values(
        fitted, _inputs(prepared.state[logged.starts], actions.action[logged.starts])
    )
    members = _member_means(prepared, start_values)
    estimate = interval_of_members(members, behaviour.bias)._replace(
        mean=float(start_values.mean())
    )
    difference = interval_of_members(members - behaviour.members)
    problems = _problems(behaviour, fitted, outside.on_path)
    verdict, reason = verdict_of(difference, problems)
    highest = float(behaviour.returns.max())
    warnings = []
    if not problems and estimate.mean > highest:
        warnings.append(
            f"the estimate {estimate.mean:.4g} is above {highest:.4g}, the highest return of a "
            "recorded episode"
        )
    return {
        "verdict": verdict,
        "reason": reason,
        "estimate": None if problems else estimate._asdict(),
        "difference": None if problems else difference._asdict(),
        "outside_support": outside.on_path,
        "outside_support_everywhere": float(outside.is_outside.mean()),
        "outside_support_by_region": (
            None
            if prepared.regions is None
            else prepared.regions.shares(prepared.support.query, outside.is_outside)
        ),
        "checks": _checks(fitted),
        "warnings": warnings,
        "importance": None if problems else _importance(prepared, actions, fitted),
    }


def _problems(behaviour: _Behaviour, fitted: FittedQ, outside: float) -> list[str]:
    """Returns what forbids an estimate, most important first."""
    problems = []
    if outside > _MOST_OUTSIDE:
        problems.append(f"{100 * outside:.0f} % of its actions are outside the data's support")
    for who, values in (("its", fitted), ("the behaviour's", behaviour.fitted)):
        if values.is_diverged:
            problems.append(
                f"{100 * values.beyond:.0f} % of {who} values are beyond what rewards can add up to"
            )
        elif not values.is_converged:
            problems.append(f"{who} values have not converged: give more --updates")
    share = behaviour.continued_share
    if share > _MOST_CONTINUED:
        problems.append(
            f"the episodes are cut off too early for this discount: {100 * share:.0f} % of their "
            "return would follow after the end"
        )
    if abs(behaviour.bias) > _MOST_BIAS * behaviour.fitted.scale:
        problems.append(
            f"the estimate of the recorded behaviour is wrong by {behaviour.bias:.4g}: record more "
            "episodes"
        )
    return problems


def _fit(prepared: _Prepared, actions: PolicyActions, is_used: np.ndarray | None = None) -> FittedQ:
    logged = prepared.logged
    transitions = Transitions(
        _inputs(prepared.state, logged.action),
        _inputs(prepared.next_state, actions.next_action),
        logged.reward,
        (~logged.is_terminal).astype(np.float32),
    )
    start = _inputs(prepared.state[logged.starts], actions.action[logged.starts])
    return fitted_q.fit(
        transitions,
        _member_rows(prepared, is_used),
        start,
        prepared.returns,
        prepared.bounds,
        prepared.settings,
        prepared.seed,
    )


def _member_rows(prepared: _Prepared, is_used: np.ndarray | None) -> np.ndarray:
    """Returns as many rows `[K, M]` for each member, from its sample of the episodes."""
    random = np.random.default_rng(prepared.seed + 1)
    rows = []
    for episodes in prepared.member_episodes:
        own = rows_of(prepared.logged, episodes)
        if is_used is not None:
            own = own[is_used[own]]
        rows.append(random.choice(own, len(prepared.logged.reward)))
    return np.stack(rows)


def _member_means(prepared: _Prepared, start_values: np.ndarray) -> np.ndarray:
    """Averages values `[K, E]` of starts over the episodes of each member's sample."""
    return np.take_along_axis(start_values, prepared.member_episodes, axis=1).mean(axis=1)


def _states(logged: Logged) -> tuple[np.ndarray, np.ndarray]:
    """Returns the standardised states `[M, S]` before and after each transition.

    An observation rarely tells everything. Two numbers that are known at every step say more: the
    action before, which may still have to take effect, and the sum of the rewards so far, which
    tells how far the episode has come.
    """
    earned = logged.earned
    state = np.concatenate([logged.observation, logged.previous_action, earned[:, None]], axis=1)
    following = np.concatenate(
        [logged.next_observation, logged.action, (earned + logged.reward)[:, None]], axis=1
    )
    mean, deviation = state.mean(axis=0), state.std(axis=0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    first, second = (
        np.clip((array - mean) / deviation, -_INPUT_LIMIT, _INPUT_LIMIT).astype(np.float32)
        for array in (state, following)
    )
    return first, second


def _inputs(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.concatenate([state, action], axis=1).astype(np.float32)


def _checks(fitted: FittedQ) -> dict[str, Any]:
    return {
        "is_converged": fitted.is_converged,
        "remaining_change": fitted.remaining * fitted.scale,
        "drift": fitted.drift * fitted.scale,
        "is_diverged": fitted.is_diverged,
        "beyond_bounds": fitted.beyond,
    }


def _importance(
    prepared: _Prepared, actions: PolicyActions, fitted: FittedQ
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
    prepared: _Prepared, actions: PolicyActions, fitted: FittedQ, log_ratio: np.ndarray
) -> importance.PaddedEpisodes:
    """Returns the episodes as `[E, T]`; after a truncated end, the estimate continues them."""
    logged = prepared.logged
    taken = fitted_q.action_values(fitted, _inputs(prepared.state, logged.action)).mean(axis=0)
    chosen = fitted_q.action_values(fitted, _inputs(prepared.state, actions.action)).mean(axis=0)
    last = logged.bounds[1:] - 1
    after = fitted_q.action_values(
        fitted, _inputs(prepared.next_state[last], actions.next_action[last])
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
