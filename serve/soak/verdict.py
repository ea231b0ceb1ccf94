"""The verdict of a soak: trends after the warm-up, and a bound for each."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from serve.soak.rates import Rate, answer_rates, env_step_rates, train_step_rates
from serve.soak.sample import Sample

MOST_RSS_MB_PER_MIN = 1.0
MOST_FILES_PER_MIN = MOST_THREADS_PER_MIN = 0.1  # six in an hour
MOST_DISK_MB_PER_MIN = 1.0
MOST_FALL_PERCENT = 20.0  # of a rate, over the time that is measured
MOST_FAILED_SHARE = 0.001
RATES: dict[str, Callable[[Sequence[Sample]], list[Rate | None]]] = {
    "env_steps": env_step_rates,
    "train_steps": train_step_rates,
    "answers": answer_rates,
}
_WARM_UP_SHARE, _MOST_WARM_UP_S = 0.25, 900.0
_FEWEST_SAMPLES = 8
_MOST_POINTS = 500  # of a fit, whose cost grows with their square
_FEWEST_OF_A_FALL = 24  # samples, below which a fall cannot be told from noise
_WINDOW_SHARE = 12  # samples on each side of a fall, as a part of all
_CLEAR_FALL = 6.0  # in median absolute deviations from the line


class Trend(NamedTuple):
    """A line through samples, and the 95 % interval of its slope."""

    per_min: float
    low_per_min: float
    high_per_min: float
    at_start: float  # value of the line at the first sample
    at_end: float
    beside_fall_per_min: float | None = None  # without the largest sudden fall, if there is one

    @property
    def growth_per_min(self) -> float:
        """The slope, which a sudden fall must not hide: a leak may go on before and after it."""
        return max(self.per_min, self.beside_fall_per_min or self.per_min)


class Check(NamedTuple):
    """One bound, and whether the soak kept it; a value that is missing breaks its bound."""

    name: str
    value: float | None
    bound: float
    unit: str
    is_kept: bool


def warm_up_s(duration_s: float) -> float:
    """Returns how long programs compile and fill their caches, which no trend counts."""
    return min(_MOST_WARM_UP_S, _WARM_UP_SHARE * duration_s)


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """Returns the samples after the warm-up."""
    if not samples:
        return []
    start_s = warm_up_s(samples[-1].second)
    return [sample for sample in samples if sample.second >= start_s]


def fit_trend(seconds: Sequence[float], values: Sequence[float]) -> Trend | None:
    """Fits a line with the Theil-Sen estimator (Sen 1968); None for fewer than eight values.

    Its slope is the median of those of all pairs of points. Short peaks, as of an evaluation or of
    a publication, therefore do not move it.
    """
    from scipy import stats

    if len(values) < _FEWEST_SAMPLES:
        return None
    parts = min(len(values), _MOST_POINTS)
    minutes = _medians(np.asarray(seconds, float) / 60.0, parts)
    points = _medians(np.asarray(values, float), parts)
    slope, intercept, low, high = stats.theilslopes(points, minutes, 0.95)
    start, end = (float(intercept + slope * minutes[index]) for index in (0, -1))
    beside = _slope_beside_fall(minutes, points)
    return Trend(float(slope), float(low), float(high), start, end, beside)


def _slope_beside_fall(minutes: np.ndarray, values: np.ndarray) -> float | None:
    """Fits two parallel lines, before and after the largest sudden fall; returns their slope.

    None without a fall that is clear beside the deviations from the lines. A series that falls
    again and again, as a saw does, deviates too much for that: its slope is that of one line.
    """
    width = len(values) // _WINDOW_SHARE
    if len(values) < _FEWEST_OF_A_FALL:
        return None
    places = np.arange(width, len(values) - width + 1)
    falls = [np.median(values[at - width : at]) - np.median(values[at : at + width])
             for at in places]  # fmt: skip
    at = int(places[int(np.argmax(falls))])
    parts = (slice(0, at), slice(at, None))
    slope = float(np.median(np.concatenate([_slopes(minutes[p], values[p]) for p in parts])))
    levels = values - slope * minutes
    before, after = (float(np.median(levels[part])) for part in parts)
    levels[parts[0]] -= before
    levels[parts[1]] -= after
    is_clear = before - after > _CLEAR_FALL * float(np.median(np.abs(levels)))
    return slope if before > after and is_clear else None


def _slopes(minutes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the slopes of all pairs of points."""
    first, second = np.triu_indices(len(values), 1)
    lengths = minutes[second] - minutes[first]
    return (values[second] - values[first])[lengths > 0] / lengths[lengths > 0]


def _medians(values: np.ndarray, parts: int) -> np.ndarray:
    return np.array([np.median(part) for part in np.array_split(values, parts)])


def trends(samples: Sequence[Sample]) -> dict[str, Trend | None]:
    """Returns the trends after the warm-up of everything that has a bound."""
    series: dict[str, list[float | None]] = {
        "rss_mb": [sample.total("memory_mb") for sample in samples],
        "files": [sample.total("files") for sample in samples],
        "threads": [sample.total("threads") for sample in samples],
        "disk_mb": [sum(sample.disk_mb.values()) for sample in samples],
    }
    for group in samples[0].groups if samples else ():
        series[f"rss_mb of {group}"] = [sample.groups[group].memory_mb for sample in samples]
    for name, rates_of in RATES.items():
        rates = rates_of(samples)
        for unit in Rate._fields:
            series[f"{name}_{unit}"] = [rate and getattr(rate, unit) for rate in rates]
    after = settled(samples)
    return {
        name: _trend_of(after, values[len(samples) - len(after) :])
        for name, values in series.items()
    }


def _trend_of(samples: Sequence[Sample], values: Sequence[float | None]) -> Trend | None:
    pairs = zip(samples, values, strict=True)
    points = [(sample.second, value) for sample, value in pairs if value is not None]
    return fit_trend([second for second, _ in points], [value for _, value in points])


def lasting_zombies(samples: Sequence[Sample]) -> int:
    """Counts processes that had ended in two samples in a row, and that nobody waited for."""
    found: set[tuple[int, int]] = set()
    for before, after in zip(samples, samples[1:], strict=False):
        now = frozenset().union(*(usage.zombies for usage in after.groups.values()))
        found |= now & frozenset().union(*(usage.zombies for usage in before.groups.values()))
    return len(found)


def judge(samples: Sequence[Sample]) -> tuple[list[Check], dict[str, Trend | None]]:
    """Compares a soak with its bounds."""
    found = trends(samples)

    def at_most(name: str, bound: float, unit: str, *trends_: str) -> Check:
        slopes = [fit.growth_per_min for one in trends_ if (fit := found[one]) is not None]
        slope = max(slopes) if len(slopes) == len(trends_) else None
        return Check(name, slope, bound, unit, slope is not None and slope < bound)

    def falls(*names: str) -> Check:
        falls = [fall for name in names if (fall := fall_percent(found[name])) is not None]
        fall = min(falls) if len(falls) == len(names) else None
        is_kept = fall is not None and fall <= MOST_FALL_PERCENT
        return Check(f"fall of {names[0]}", fall, MOST_FALL_PERCENT, "%", is_kept)

    failures = sum(sample.heard.failures for sample in samples)
    requests = failures + sum(sample.heard.answers for sample in samples)
    failed = failures / requests if requests else None
    zombies = lasting_zombies(samples)
    lost = sum(sample.heard.lost_pages for sample in samples)
    restarts = samples[-1].restarts if samples else 0
    return [
        # Each program too: the memory that one gives back must not hide the leak of another.
        at_most(
            "resident memory",
            MOST_RSS_MB_PER_MIN,
            "MB/min",
            *(name for name in found if name.startswith("rss_mb")),
        ),
        at_most("file descriptors", MOST_FILES_PER_MIN, "1/min", "files"),
        at_most("threads", MOST_THREADS_PER_MIN, "1/min", "threads"),
        at_most("disk", MOST_DISK_MB_PER_MIN, "MB/min", "disk_mb"),
        *(falls(f"{name}_per_cpu_s") for name in RATES),
        # Load from outside lowers a rate per second, and its end one per available CPU-second.
        *(falls(f"{name}_per_s", f"{name}_per_available_cpu_s") for name in RATES),
        Check("zombies", zombies, 0, "", zombies == 0),
        Check("restarts", restarts, 0, "", restarts == 0),
        Check("times that the viewer lost the page", lost, 0, "", lost == 0),
        Check(
            "requests without the policy's action",
            failed,
            MOST_FAILED_SHARE,
            "of all",
            failed is not None and failed <= MOST_FAILED_SHARE,
        ),
    ], found


def fall_percent(trend: Trend | None) -> float | None:
    """Returns how far a rate fell over its samples; 0 if its slope may be that of a flat line.

    None without a trend, and for a rate of zero.
    """
    if trend is None:
        return None
    if trend.low_per_min > 0.0:  # A line through a steep rise may even begin below zero.
        return 0.0
    if trend.at_start <= 0.0:
        return None
    if trend.high_per_min >= 0.0:
        return 0.0
    return 100.0 * (1.0 - trend.at_end / trend.at_start)


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns the numbers of `soak.json` without its origin."""
    checks, found = judge(samples)
    last = samples[-1] if samples else None

    def slope(name: str) -> float | None:
        fitted = found[name]
        return None if fitted is None else round(fitted.per_min, 4)

    return {
        "hours": round(last.second / 3600.0, 4) if last else 0.0,
        "warm_up_min": round(warm_up_s(last.second) / 60.0, 2) if last else 0.0,
        "samples": len(samples),
        "rss_slope_mb_per_min": slope("rss_mb"),
        "fd_slope": slope("files"),
        "thread_slope": slope("threads"),
        "disk_slope_mb_per_min": slope("disk_mb"),
        "zombies": lasting_zombies(samples),
        "restarts": last.restarts if last else 0,
        "versions_published": last.versions if last else 0,
        "versions_answering": last.versions_answering if last else 0,
        "answers": sum(sample.heard.answers for sample in samples),
        "failures": sum(sample.heard.failures for sample in samples),
        "frames": sum(sample.heard.frames for sample in samples),
        "worst_p99_ms": max(
            (one.heard.p99_ms for one in settled(samples) if one.heard.p99_ms is not None),
            default=None,
        ),
        "checks": [check._asdict() for check in checks],
        "broken": [check.name for check in checks if not check.is_kept],
        "trends": {
            name: None
            if trend is None
            else {k: None if v is None else round(v, 4) for k, v in trend._asdict().items()}
            for name, trend in found.items()
        },
    }
