"""Chooses among trained policies: the baseline, unless another one is better."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_RESAMPLES = 2000


class Measure(NamedTuple):
    """Costs of one candidate, lower is better; all candidates on the same tracks or episodes."""

    cost: np.ndarray  # [N]

    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % bootstrap interval of the mean; None for a single cost."""
        if len(self.cost) < 2:
            return None
        index = np.random.default_rng(0).integers(len(self.cost), size=(_RESAMPLES, len(self.cost)))
        low, high = np.percentile(self.cost[index].mean(axis=1), [2.5, 97.5])
        return float(low), float(high)


class Choice(NamedTuple):
    """The chosen candidate, and why."""

    name: str
    reason: str


def choose_by_measures(measures: Mapping[str, Measure]) -> Choice:
    """Returns the candidate with the lowest mean cost; the first one wins a tie."""
    mean = {name: float(measure.cost.mean()) for name, measure in measures.items()}
    best = min(mean, key=mean.__getitem__)
    first = next(iter(mean))
    if best == first:
        return Choice(best, f"no other candidate has a mean cost below {mean[best]:.4g}")
    return Choice(best, f"its mean cost {mean[best]:.4g} is below {mean[first]:.4g} of {first}")


def choose_by_estimates(names: list[str], report: Mapping[str, Any] | None) -> Choice:
    """Returns the first candidate, unless the estimate of another one is higher.

    A candidate whose verdict is not `better` than the recorded behaviour never replaces another:
    what the data cannot tell is no reason to drive it.
    """
    chosen = names[0]
    if len(names) == 1:
        return Choice(chosen, "it is the only candidate")
    if report is None:
        return Choice(chosen, "there are neither measures nor estimates: the baseline is kept")
    results = report["policies"]

    def value(name: str) -> float:
        estimate = results[name]["estimate"]
        return float("-inf") if estimate is None else float(estimate["mean"])

    for name in names[1:]:
        if results[name]["verdict"] == "better" and value(name) > value(chosen):
            chosen = name
    if chosen == names[0]:
        return Choice(chosen, "no other candidate has a higher estimate with the verdict better")
    if results[names[0]]["estimate"] is None:
        return Choice(chosen, f"its verdict is better, and nothing is known about {names[0]}")
    return Choice(
        chosen, f"its estimate {value(chosen):.4g} is above {value(names[0]):.4g} of {names[0]}"
    )
