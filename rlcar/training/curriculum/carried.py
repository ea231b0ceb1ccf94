"""Checks the running statistics that a learner carries from one stage to the next.

A learner that normalises observations, or scales rewards, by running statistics cannot work with
others than those that it was trained with. A curriculum whose statistics are lost at a boundary
collapses there without an error. `Learner.moments_of` names the statistics; this module names no
algorithm.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rlcar.errors import CheckpointError
from rlcar.storage import checkpoint
from rlcar.types import Learner

# Observations of which the moments are meaningful; a boundary compares as many env steps.
LEAST_COUNT = 1000
# Kullback-Leibler divergence in nats, of the new stage's observations from the carried statistics,
# each number as a normal distribution. A mean that moves by one deviation costs 0.5.
WARN_NATS, REFUSE_NATS = 4.0, 10.0  # of the median over the numbers of an observation
_WARN_GREATEST_NATS = 100.0  # of one of them, which the normaliser will limit
_LEAST_VARIANCE = 1e-8  # as the normalisers add it; an observation that never changes has none


class Statistics(NamedTuple):
    """Running statistics as NumPy arrays of float64."""

    mean: np.ndarray
    variance: np.ndarray
    observations: float  # how many they are of

    def summary(self) -> dict[str, Any]:
        """Returns what the journal keeps, from which a change is noticed."""
        data = b"".join(np.asarray(x, np.float64).tobytes() for x in self)
        return {"count": self.observations, "sha256": hashlib.sha256(data).hexdigest()}


class Distance(NamedTuple):
    """How far the observations of a stage are from the carried statistics."""

    median_nats: float
    greatest_nats: float
    number: int  # index, in an observation, of the number that is farthest


def statistics_of(learner: Learner, state: Any) -> dict[str, Statistics]:
    """Returns the running statistics of a learner's state by name; empty if it keeps none."""
    if learner.moments_of is None:
        return {}
    return {name: _on_host(moments) for name, moments in learner.moments_of(state).items()}


def load_statistics(learner: Learner, save: checkpoint.Save) -> dict[str, Statistics]:
    """Returns the statistics of a checkpoint; empty if the learner keeps none.

    Raises CheckpointError if the checkpoint is of another architecture or damaged.
    """
    if learner.moments_of is None:
        return {}
    like = jax.eval_shape(learner.init, 0)
    return statistics_of(learner, checkpoint.load(save, like, part="learner"))


def problem_of(
    found: Mapping[str, Statistics],
    expected: Mapping[str, Mapping[str, Any]],
    *,
    least_count: float,
    is_continued: bool,
) -> str:
    """Says what is wrong with statistics; empty if nothing is.

    `expected` are the summaries from the end of the attempt before. `is_continued` is True after
    further training, in which the counts must have grown.
    """
    if expected and set(found) != set(expected):
        return f"it holds {_names(found)}, and the attempt before ended with {_names(expected)}"
    for name, statistics in found.items():
        problem = _impossible(statistics)
        if problem:
            return f"the statistics {name!r} are impossible: {problem}"
        number = f"the statistics {name!r} count {statistics.observations:,.0f} observations"
        if statistics.observations < least_count:
            return f"{number}, and at least {least_count:,.0f} were driven: they were lost or reset"
        before = expected.get(name)
        if before is None:
            continue
        if is_continued and statistics.observations <= before["count"]:
            return (
                f"{number}, not more than the {before['count']:,.0f} that the attempt began with: "
                "they were lost, reset or not updated"
            )
        if not is_continued and statistics.summary()["sha256"] != before["sha256"]:
            return (
                f"the statistics {name!r} are not those with which the attempt before ended "
                f"(count {statistics.observations:,.0f}, and {before['count']:,.0f} there)"
            )
    return ""


def distance(carried: Statistics, observations: np.ndarray) -> Distance:
    """Compares observations `[M, O]` of a new stage with the carried statistics `[O]`.

    For each number it is the divergence of two normal distributions, KL(new || carried) =
    ln(s / s') + (s'^2 + (m' - m)^2) / (2 s^2) - 1/2, where m' and s' are those of the observations.
    """
    mean, variance = observations.mean(axis=0), observations.var(axis=0)
    old = np.maximum(carried.variance, _LEAST_VARIANCE)
    new = np.maximum(variance, _LEAST_VARIANCE)
    nats = 0.5 * (np.log(old / new) + (new + np.square(mean - carried.mean)) / old - 1.0)
    number = int(np.argmax(nats))
    median = float(np.quantile(nats, 0.5, method="lower"))
    return Distance(median, float(nats[number]), number)


def warning_of(found: Distance, source: str, stage: str) -> str:
    """Returns a warning about a great distance, empty if there is nothing to warn of.

    `source` names the carried statistics. Raises CheckpointError if the distance is too great.
    """
    figures = (
        f"median {found.median_nats:.2f} nats over the numbers of an observation, greatest "
        f"{found.greatest_nats:.1f} at number {found.number}"
    )
    if found.median_nats > REFUSE_NATS:
        raise CheckpointError(
            f"the observation statistics of {source} do not describe stage {stage} at all "
            f"({figures}; at most a median of {REFUSE_NATS:g}): they belong to another environment "
            "or were reset. Add a stage between the two, or restore the checkpoint"
        )
    if found.median_nats > WARN_NATS or found.greatest_nats > _WARN_GREATEST_NATS:
        return f"the observations of stage {stage} differ much from those before: {figures}"
    return ""


def _on_host(moments: Any) -> Statistics:
    mean, variance, count = (
        np.asarray(jax.device_get(part), np.float64)
        for part in (moments.mean, moments.variance, moments.count)
    )
    return Statistics(mean, variance, float(count))


def _impossible(statistics: Statistics) -> str:
    if statistics.mean.shape != statistics.variance.shape:
        return f"mean {statistics.mean.shape} and variance {statistics.variance.shape} differ"
    for name, value in statistics._asdict().items():
        if not np.isfinite(value).all():
            return f"{name}: not every number is finite"
    if not (statistics.variance > 0.0).all():
        return f"a variance is {statistics.variance.min():.3g}, and each has to be above 0"
    return ""


def _names(statistics: Mapping[str, Any]) -> str:
    return f"the statistics {', '.join(sorted(statistics))}" if statistics else "no statistics"
