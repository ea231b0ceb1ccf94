"""How long jobs will still take, from rates that were measured while jobs of the campaign ran."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Source = Literal["own", "settings", "kind", "hours", "guess"]

# Standard deviation of the logarithm of a duration that is predicted from each source. A job's own
# rate changes while it learns; jobs of equal settings differ by their seeds; jobs of one algorithm
# and environment also by their settings.
_LOG_SIGMA: Mapping[Source, float] = {
    "own": 0.12,
    "settings": 0.2,
    "kind": 0.4,
    "hours": 0.5,
    "guess": 1.0,
}
_SHORT_MEASUREMENT = 0.5  # added for a measurement of no length
_SHORT_S = 30.0  # measurement after which a third of that is left
_WINDOW_S = 3600.0  # of a job's own rate
_AT_LEAST_S = 5.0  # shorter measurements say nothing
_GUESSED_PER_S = 1000.0
_MIN_REMAINING_S = 1.0


class Work(NamedTuple):
    """What a job has to do."""

    total: float  # env steps, or episodes
    unit: str
    settings: str  # equal for jobs that differ in their seed and length alone
    kind: str  # algorithm and environment
    hours: float | None = None  # the whole duration, as the campaign's file says it


class Prediction(NamedTuple):
    """How long a job will still take."""

    remaining_s: float
    source: Source
    log_sigma: float  # standard deviation of the logarithm of the remaining time
    kind: str
    measured_s: float = 0.0  # length of the measurement behind it
    per_s: float | None = None  # measured rate, in the job's unit

    @property
    def is_guess(self) -> bool:
        """Whether nothing is known about the speed of this job."""
        return self.source == "guess"


class Measurement(NamedTuple):
    """Work that was done in some time."""

    work: float
    seconds: float

    @property
    def per_s(self) -> float:
        """The rate."""
        return self.work / self.seconds


class Meter:
    """Measures the rate of one job over its processes, from their first progress on."""

    def __init__(self) -> None:
        """Begins without a measurement."""
        self._earlier = Measurement(0.0, 0.0)  # of processes that have ended
        self._samples: list[tuple[float, float]] = []  # (time, work done) of the present process
        self._began_s = 0.0
        self._work_at_start: float | None = None
        self._has_progress = False  # of a process that runs
        self.start_s: float | None = None  # from a process's start to its first progress
        self.end_s: float | None = None  # from the last progress to the end: the final evaluation

    def begin(self, now_s: float, done: float | None = None) -> None:
        """A process of the job has started, which continues at `done`."""
        self._earlier = self._both()
        self._samples, self._began_s, self._work_at_start = [], now_s, done
        self._has_progress = False

    def end(self, now_s: float, *, is_done: bool) -> None:
        """The process has ended, with the job if `is_done`."""
        if is_done and self._has_progress:
            self.end_s = now_s - self._samples[-1][0]
        self._has_progress = False

    def see(self, now_s: float, done: float) -> None:
        """The job has completed `done` of its work by now."""
        if self._work_at_start is None:
            self._work_at_start = done
        if not self._samples and done <= self._work_at_start:
            self._work_at_start = min(done, self._work_at_start)
            return
        if not self._has_progress:
            self.start_s = now_s - self._began_s
            self._has_progress = True
        if self._samples and done < self._samples[-1][1]:
            self._samples = []  # an older checkpoint: what follows is a measurement of its own
        if self._samples and done == self._samples[-1][1] and len(self._samples) > 1:
            return  # the next progress includes this time
        self._samples.append((now_s, done))
        while now_s - self._samples[0][0] > _WINDOW_S and len(self._samples) > 2:
            del self._samples[0]

    def note(
        self,
        work: float = 0.0,
        seconds: float = 0.0,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> None:
        """Takes over the figures of a measurement from the journal."""
        self._earlier = Measurement(work, seconds) if work > 0 < seconds else self._earlier
        self.start_s = self.start_s if start_s is None else start_s
        self.end_s = self.end_s if end_s is None else end_s

    def figures(self) -> dict[str, float]:
        """Returns what `note` takes over, for the journal; empty if nothing was measured."""
        measured = self.measurement()
        found = {} if measured is None else dict(measured._asdict())
        ends = {"start_s": self.start_s, "end_s": self.end_s}
        return found | {name: value for name, value in ends.items() if value is not None}

    def unproductive_s(self, start_s: float, end_s: float) -> float:
        """Returns the time that its job still needs besides work, from those of all jobs."""
        return end_s if self._has_progress else start_s + end_s

    def measurement(self) -> Measurement | None:
        """Returns what was measured; None while it is too short."""
        both = self._both()
        return both if both.seconds >= _AT_LEAST_S and both.work > 0 else None

    def _both(self) -> Measurement:
        work = seconds = 0.0
        if len(self._samples) > 1:
            (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
            work, seconds = last - first, last_s - first_s
        # The present process counts fully; earlier ones fill the rest of the window.
        share = max(0.0, min(1.0, (_WINDOW_S - seconds) / max(self._earlier.seconds, 1e-9)))
        return Measurement(
            work + share * self._earlier.work, seconds + share * self._earlier.seconds
        )


class Predictor:
    """Predicts every job of a campaign from the measurements of all."""

    def __init__(self, works: Mapping[str, Work]):
        """`works` holds all jobs."""
        self.works = dict(works)
        self.meters = {name: Meter() for name in works}

    def start_s(self) -> float:
        """Returns the mean time from the start of a process to its first progress."""
        return _mean(meter.start_s for meter in self.meters.values())

    def end_s(self) -> float:
        """Returns the mean time from the last progress of a job to its end."""
        return _mean(meter.end_s for meter in self.meters.values())

    def predict(self, done: Mapping[str, float]) -> dict[str, Prediction]:
        """Returns a prediction for each job of `done`, which says how much each has completed."""
        measured = {
            name: one
            for name, meter in self.meters.items()
            if (one := meter.measurement()) is not None
        }
        by_settings = _mean_rates(measured, {name: w.settings for name, w in self.works.items()})
        by_kind = _mean_rates(measured, {name: w.kind for name, w in self.works.items()})
        everything = _mean_rates(measured, dict.fromkeys(self.works, ""))
        start_s, end_s = self.start_s(), self.end_s()
        found = {}
        for name, completed in done.items():
            work = self.works[name]
            left = max(0.0, work.total - completed)
            own = measured.get(name)
            if own is not None:
                source: Source = "own"
                rate = own
            elif work.settings in by_settings:
                source, rate = "settings", by_settings[work.settings]
            elif work.kind in by_kind:
                source, rate = "kind", by_kind[work.kind]
            elif work.hours is not None:
                source, rate = "hours", Measurement(work.total, 3600.0 * work.hours)
            else:
                source = "guess"
                rate = everything.get("", Measurement(_GUESSED_PER_S, 1.0))
            seconds = 0.0 if source in ("hours", "guess") else rate.seconds
            # The file's hours are those of the whole job.
            besides_s = (
                0.0 if source == "hours" else self.meters[name].unproductive_s(start_s, end_s)
            )
            found[name] = Prediction(
                max(_MIN_REMAINING_S, left / rate.per_s + besides_s),
                source,
                _log_sigma(source, seconds),
                work.kind,
                seconds,
                rate.per_s if seconds else None,
            )
        return found


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def _log_sigma(source: Source, seconds: float) -> float:
    short = 0.0
    if source in ("own", "settings", "kind"):
        short = _SHORT_MEASUREMENT * math.exp(-seconds / _SHORT_S)
    return math.hypot(_LOG_SIGMA[source], short)


def _mean_rates(
    measured: Mapping[str, Measurement], groups: Mapping[str, str]
) -> dict[str, Measurement]:
    """Returns the mean measurement of each group that has one."""
    members: dict[str, list[Measurement]] = {}
    for name, one in measured.items():
        members.setdefault(groups[name], []).append(one)
    return {group: _pooled(ones) for group, ones in members.items()}


def _pooled(ones: Iterable[Measurement]) -> Measurement:
    pairs = list(ones)
    return Measurement(sum(one.work for one in pairs), sum(one.seconds for one in pairs))
