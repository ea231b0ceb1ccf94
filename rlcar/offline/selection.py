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
    """Returns the first candidate, unless another one is known to be better.

    `report` compares the others with the first one on the same samples of the episodes. Among those
    with the verdict `better` the one with the highest estimate is chosen. What the data cannot tell
    is no reason to drive a candidate.
    """
    first = names[0]
    if len(names) == 1:
        return Choice(first, "it is the only candidate")
    if report is None:
        return Choice(first, "there are neither measures nor estimates: the baseline is kept")
    results = report["policies"]
    better = {
        name: float(results[name]["estimate"]["mean"])
        for name in names[1:]
        if results[name]["verdict"] == "better"
    }
    if not better:
        return Choice(first, f"no other candidate is known to be better than {first}")
    chosen = max(better, key=better.__getitem__)
    difference = "{mean:.4g} ({low:.4g}–{high:.4g})".format(**results[chosen]["difference"])
    return Choice(chosen, f"it is better than {first}: the return differs by {difference}")
