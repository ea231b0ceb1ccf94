"""Evaluates policies on recorded episodes: estimates, checks, warnings and verdicts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rlcar.errors import DatasetError
from rlcar.evaluation.off_policy import fitted_q, support
from rlcar.evaluation.off_policy.behaviour import (
    MOST_CONTINUED,
    Behaviour,
    evaluate_behaviour,
)
from rlcar.evaluation.off_policy.fitted_q import FittedQ, FittedQSettings
from rlcar.evaluation.off_policy.importance_estimates import importance_estimates
from rlcar.evaluation.off_policy.logged import Logged
from rlcar.evaluation.off_policy.policies import PolicyActions
from rlcar.evaluation.off_policy.prepared import (
    Prepared,
    fit,
    inputs,
    member_means,
    prepare,
)
from rlcar.evaluation.off_policy.regions import Regions
from rlcar.evaluation.off_policy.verdict import Interval, interval_of_members, verdict_of

# Largest share of a policy's actions outside the support. Walks through the data depart from the
# policy's true path, so the share is not 0 for the drivers of the data themselves. In
# benchmarks/offline_evaluation.py with the seeds 0 and 1, on which this limit was chosen, it is at
# most 0.22 for supported and at least 0.37 for others.
_MOST_OUTSIDE = 0.25
_MOST_BIAS = 0.25  # of the behaviour's estimate, in standard deviations of the returns
FEWEST_EPISODES = 10  # of which a fifth is held out

OnPolicy = Callable[[str], None]


class _Evaluated(NamedTuple):
    """A policy with its estimates, or with what forbids them."""

    outside: support.Outside
    fitted: FittedQ | None  # None if the support or the data forbids an estimate beforehand
    members: np.ndarray | None  # [K]
    estimate: Interval | None  # None if there is a problem
    problems: list[str]


class _Reference(NamedTuple):
    """What policies are compared with: the policy that drove, or a baseline."""

    members: np.ndarray | None  # [K]
    problems: list[str]  # that forbid a comparison


def evaluate(
    logged: Logged,
    policies: Mapping[str, PolicyActions],
    settings: FittedQSettings,
    *,
    baseline: str | None = None,
    regions: Regions | None = None,
    seed: int = 0,
    on_policy: OnPolicy = lambda name: None,
) -> dict[str, Any]:
    """Returns the report of all policies, as a tree for JSON.

    The verdicts compare the policies with `baseline`, which is one of them, or by default with the
    recorded behaviour. `on_policy` is called with the name of what is evaluated next. Policies with
    a number are ranked before those without. Raises DatasetError for fewer than 10 episodes, and if
    every reward is 0.
    """
    require_enough(logged.episodes)
    if not logged.reward.any():
        raise DatasetError(
            "every recorded reward is 0, so no policy is better than another: record rewards"
        )
    on_policy("behaviour")
    prepared = prepare(logged, settings, seed)
    behaviour = evaluate_behaviour(prepared)
    problems = _behaviour_problems(behaviour)
    evaluated = {}
    for name, actions in policies.items():
        on_policy(name)
        evaluated[name] = _evaluate(prepared, behaviour, problems, actions)
    of_behaviour = _Reference(behaviour.members, problems)
    reference = of_behaviour if baseline is None else _reference(baseline, evaluated[baseline])
    results = {}
    for name, one in evaluated.items():
        compared = of_behaviour if name == baseline else reference
        results[name] = _result(prepared, behaviour, compared, policies[name], one, regions)
    order = sorted(results.keys() - {baseline}, key=lambda name: _rank_key(name, results[name]))
    return {
        "discount": settings.discount,
        "episodes": logged.episodes,
        "transitions": len(logged.reward),
        "behaviour": {
            "return": behaviour.observed,
            "highest_episode_return": float(behaviour.returns.max()),
            "continued_share": behaviour.continued_share,
            "estimate": behaviour.estimate,
            "bias": behaviour.bias,
            **_checks(behaviour.fitted),
        },
        "coverage": None if regions is None else regions.coverage(),
        "warnings": [] if regions is None else regions.warnings(),
        "baseline": None if baseline is None else {"name": baseline, **results[baseline]},
        "policies": {name: results[name] for name in order},
    }


def require_enough(episodes: int) -> None:
    """Raises DatasetError if there are too few episodes for an estimate."""
    if episodes < FEWEST_EPISODES:
        raise DatasetError(
            f"{episodes} {'episode is' if episodes == 1 else 'episodes are'} too few to estimate a "
            f"policy from: record at least {FEWEST_EPISODES}, or use more with --transitions"
        )


def _rank_key(name: str, result: Mapping[str, Any]) -> tuple[bool, float, str]:
    estimate = result["estimate"]
    return estimate is None, 0.0 if estimate is None else -estimate["mean"], name


def _evaluate(
    prepared: Prepared, behaviour: Behaviour, of_data: list[str], actions: PolicyActions
) -> _Evaluated:
    """Estimates a policy. `of_data` is what forbids any estimate from this data."""
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
    share, problems = outside.on_path, []
    if share > _MOST_OUTSIDE:
        problems = [f"{100 * share:.0f} % of its actions are outside the data's support"]
    problems += of_data
    if problems:
        return _Evaluated(outside, None, None, None, problems)
    fitted = fit(prepared, actions)
    problems = _unfinished("its", fitted)
    start_values = fitted_q.action_values(
        fitted, inputs(prepared.state[logged.starts], actions.action[logged.starts])
    )
    members = member_means(prepared, start_values)
    interval = interval_of_members(members, behaviour.bias)
    estimate = None if problems else interval._replace(mean=float(start_values.mean()))
    return _Evaluated(outside, fitted, members, estimate, problems)


def _reference(name: str, baseline: _Evaluated) -> _Reference:
    problems = [f"the baseline {name} is unknown: {problem}" for problem in baseline.problems]
    return _Reference(baseline.members, problems)


def _result(
    prepared: Prepared,
    behaviour: Behaviour,
    reference: _Reference,
    actions: PolicyActions,
    evaluated: _Evaluated,
    regions: Regions | None,
) -> dict[str, Any]:
    """Returns the results of one policy, as a tree for JSON."""
    outside, fitted, members, estimate, problems = evaluated
    problems = problems or reference.problems
    difference = None
    if not problems and members is not None and reference.members is not None:
        difference = interval_of_members(members - reference.members)
    verdict, reason = verdict_of(difference, problems)
    importance = None
    if fitted is not None and estimate is not None:
        importance = importance_estimates(prepared, actions, fitted)
    return {
        "verdict": verdict,
        "reason": reason,
        "estimate": None if estimate is None else estimate._asdict(),
        "members": None if estimate is None or members is None else members.tolist(),
        "difference": None if difference is None else difference._asdict(),
        "outside_support": outside.on_path,
        "outside_support_everywhere": float(outside.is_outside.mean()),
        "outside_support_by_region": (
            None if regions is None else regions.shares(prepared.support.query, outside.is_outside)
        ),
        "checks": None if fitted is None else _checks(fitted),
        "warnings": _warnings(behaviour, estimate),
        "importance": importance,
    }


def _warnings(behaviour: Behaviour, estimate: Interval | None) -> list[str]:
    highest = float(behaviour.returns.max())
    if estimate is None or estimate.mean <= highest:
        return []
    return [
        f"the estimate {estimate.mean:.4g} is above {highest:.4g}, the highest return of a "
        "recorded episode"
    ]


def _behaviour_problems(behaviour: Behaviour) -> list[str]:
    """Returns what forbids any estimate from this data, most important first."""
    problems = _unfinished("the behaviour's", behaviour.fitted)
    share = behaviour.continued_share
    if share > MOST_CONTINUED:
        problems.append(
            f"the episodes are cut off too early for this discount: {100 * share:.0f} % of their "
            "return would follow after the end"
        )
    if not abs(behaviour.bias) <= _MOST_BIAS * behaviour.fitted.scale:
        problems.append(
            f"the estimate of the recorded behaviour is wrong by {behaviour.bias:.4g}: record more "
            "episodes"
        )
    return problems


def _unfinished(whose: str, fitted: FittedQ) -> list[str]:
    """Returns the problem of values that diverged or still move; empty for others."""
    if fitted.is_diverged:
        share = 100 * fitted.beyond
        return [f"{share:.0f} % of {whose} values are beyond what rewards can add up to"]
    if not fitted.is_converged:
        return [f"{whose} values have not converged: give more --updates"]
    return []


def _checks(fitted: FittedQ) -> dict[str, Any]:
    return {
        "is_converged": fitted.is_converged,
        "remaining_change": fitted.remaining * fitted.scale,
        "drift": fitted.drift * fitted.scale,
        "is_diverged": fitted.is_diverged,
        "beyond_bounds": fitted.beyond,
    }
