"""When a campaign will end: simulated many times with durations and failures drawn at random."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rlcar.campaigns.prediction import Prediction

_SAMPLES = 400
LOW, HIGH = 0.05, 0.95  # quantiles of the interval
AT_MOST_S = 3e9  # a century: later dates need no accuracy, and calendars end
# Before a failure was seen: half a failure in ten hours of all jobs together.
_PRIOR_FAILURES, _PRIOR_S = 0.5, 36_000.0
# All jobs share the machine, so their rates change together.
_SHARED_LOG_SIGMA = 0.06


class Interval(NamedTuple):
    """Seconds from now; the end lies between `low_s` and `high_s` with 90 % probability."""

    low_s: float
    likely_s: float
    high_s: float


class Past(NamedTuple):
    """What has failed so far, and what a failure costs."""

    failures: int
    running_s: float  # of all jobs together
    cost_s: float  # of one failure: pause, start and repeated work


def predict_end(
    running: Sequence[str],
    waiting: Sequence[str],
    predicted: Mapping[str, Prediction],
    slots: int,
    past: Past,
    generator: np.random.Generator,
) -> Interval:
    """Simulates the rest of the campaign; `waiting` begin in the order of their predictions."""
    if not running and not waiting:
        return Interval(0.0, 0.0, 0.0)
    shape = (_SAMPLES,)
    shared = generator.normal(0.0, _SHARED_LOG_SIGMA, shape)
    failures_per_s = generator.gamma(
        past.failures + _PRIOR_FAILURES, 1.0 / (past.running_s + _PRIOR_S), shape
    )

    def duration_s(name: str) -> np.ndarray:
        one = predicted[name]
        logarithm = generator.normal(0.0, one.log_sigma, shape) + shared
        seconds = one.remaining_s * np.exp(logarithm)
        return seconds + past.cost_s * generator.poisson(failures_per_s * seconds)

    used = min(slots, len(running) + len(waiting))
    free_s = np.zeros((_SAMPLES, max(used, len(running))))
    for slot, name in enumerate(running):
        free_s[:, slot] = duration_s(name)
    end_s = free_s.max(axis=1)
    if len(running) > slots:  # slots were taken away: only those that remain get another job
        free_s = np.sort(free_s, axis=1)[:, -slots:]
    rows = np.arange(_SAMPLES)
    for name in sorted(waiting, key=lambda name: -predicted[name].remaining_s):
        slot_of = free_s.argmin(axis=1)
        free_s[rows, slot_of] += duration_s(name)
        end_s = np.maximum(end_s, free_s[rows, slot_of])
    low_s, likely_s, high_s = np.minimum(np.quantile(end_s, (LOW, 0.5, HIGH)), AT_MOST_S)
    return Interval(float(low_s), float(likely_s), float(high_s))
