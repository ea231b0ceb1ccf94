"""Campaigns whose durations and failures are drawn at random; the scheduler is the real one.

`simulate` drives `Scheduler`, `Predictor` and `predict_end` as `CampaignRun` does, with a clock of
its own. Every job has a true rate, which the campaign can only measure: it changes four times while
the job learns, and jobs of one kind differ. All rates change together with the load of the machine.
Processes take a minute to start, evaluate at the end, and fail at random; then they repeat the work
since their last checkpoint.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from rlcar.campaigns.eta import Interval, Past, predict_end
from rlcar.campaigns.failures import FAILURE_CLASSES, default_limit
from rlcar.campaigns.prediction import Predictor, Work
from rlcar.campaigns.scheduler import Event, Scheduler, Start

_FINE_S, _COARSE_S = 20.0, 180.0  # steps of the clock while rates are unknown, and afterwards
_FINE_FOR_S = 240.0  # after each start
_REPORT_EVERY_S = 1800.0
_START_S = (30.0, 90.0)  # from the start of a process to its first progress
_END_S = (20.0, 120.0)  # from the last progress of a job to its end
_STOP_S = 5.0
_CHECKPOINT_EVERY_S = 60.0
_BACKOFF_S = 10.0
_ACTIVE = ("running", "stopping")
_PHASES = 4  # parts of a job with a rate of their own
_PHASE_LOG_SIGMA, _SEED_LOG_SIGMA, _LOAD_LOG_SIGMA = 0.08, 0.1, 0.06
_LOAD_LASTS_S = 7200.0


@dataclasses.dataclass
class _TrueJob:
    """What really happens to a job, which the campaign does not see."""

    total: float
    rates: np.ndarray  # [_PHASES] work per second
    done: float = 0.0
    progress_from_s: float = 0.0  # when the present process makes its first progress
    complete_at_s: float = np.inf  # the end of the final evaluation
    load: float = 1.0  # factor of all rates
    fails_at_s: float = np.inf
    ends_at_s: float = np.inf  # of a process that was asked to stop
    occupied_s: float = 0.0  # time in slots, without what probes cost

    def rate(self) -> float:
        """Returns the present rate."""
        phase = min(_PHASES - 1, int(_PHASES * self.done / self.total))
        return self.load * float(self.rates[phase])

    def left_s(self) -> float:
        """Returns the time until its work is complete at the present rate."""
        return (self.total - self.done) / self.rate()

    def is_worked(self) -> bool:
        """Whether only the final evaluation is left."""
        return self.done >= self.total * (1 - 1e-9)

    def advance(self, seconds: float) -> None:
        """Works for some time; phases that begin within it begin with the next call."""
        self.done = min(self.total, self.done + seconds * self.rate())


class Report(NamedTuple):
    """An expectation during a campaign."""

    at_s: float
    eta: Interval


class Outcome(NamedTuple):
    """How a simulated campaign went."""

    makespan_s: float
    bound_s: float  # longest first, with durations that are known exactly
    reports: list[Report]
    failures: int
    probes: int


def longest_first_s(durations_s: list[float], slots: int) -> float:
    """Returns the makespan of list scheduling, longest job first, with exact durations."""
    free_s = [0.0] * slots
    for duration_s in sorted(durations_s, reverse=True):
        free_s[free_s.index(min(free_s))] += duration_s
    return max(free_s)


class _Simulation:
    def __init__(self, generator: np.random.Generator):
        self._generator = generator
        kinds, seeds = int(generator.integers(4, 13)), int(generator.integers(1, 4))
        slots = int(generator.integers(2, 7))
        works: dict[str, Work] = {}
        self.true: dict[str, _TrueJob] = {}
        for kind in range(kinds):
            rate = float(np.exp(generator.uniform(np.log(50.0), np.log(2000.0))))
            hours = float(np.exp(generator.uniform(np.log(0.5), np.log(8.0))))
            total = rate * 3600.0 * hours
            for seed in range(seeds):
                name = f"{kind}-{seed}"
                of_seed = np.exp(generator.normal(0.0, _SEED_LOG_SIGMA))
                phases = np.exp(generator.normal(0.0, _PHASE_LOG_SIGMA, _PHASES))
                works[name] = Work(total, "env steps", str(kind), str(kind))
                self.true[name] = _TrueJob(total, rate * of_seed * phases)
        self.slots = slots
        self._failures_per_s = float(generator.choice([0.0, 0.05, 0.2])) / 3600.0
        limits = {kind: default_limit(kind, 1000, _BACKOFF_S) for kind in FAILURE_CLASSES}
        self.scheduler = Scheduler(works, slots, limits, probe_s=60.0)
        self.predictor = Predictor(works)
        self._eta_generator = np.random.default_rng(0)
        self.now_s = 0.0
        self._last_start_s = 0.0
        self._load_until_s = 0.0

    def run(self) -> Outcome:
        """Runs the campaign to its end."""
        self._apply("began")
        reports: list[Report] = []
        while not self.scheduler.is_over():
            self._act()
            if self.now_s >= _REPORT_EVERY_S * (len(reports) + 1):
                reports.append(Report(self.now_s, self._eta()))
            self._advance()
        bound_s = longest_first_s([one.occupied_s for one in self.true.values()], self.slots)
        jobs = self.scheduler.jobs.values()
        failures, probes = sum(job.failures for job in jobs), sum(job.probes for job in jobs)
        return Outcome(self.now_s, bound_s, reports, failures, probes)

    def _apply(self, kind: str, name: str = "", **fields: object) -> None:
        self.scheduler.apply(
            Event.from_tree({"kind": kind, "at_unix_s": self.now_s, "job": name, **fields})
        )

    def _done(self) -> dict[str, float]:
        jobs = self.scheduler.jobs
        return {name: one.done for name, one in self.true.items() if jobs[name].state != "done"}

    def _act(self) -> None:
        for action in self.scheduler.decide(self.now_s, self.predictor.predict(self._done())):
            true = self.true[action.job]
            if isinstance(action, Start):
                start_s = float(self._generator.uniform(*_START_S))
                true.progress_from_s = self.now_s + start_s
                true.ends_at_s = true.complete_at_s = np.inf
                self._draw_failure(true)
                true.occupied_s += start_s if true.done == 0.0 else 0.0
                self._apply("started", action.job, slot=action.slot)
                self.predictor.meters[action.job].begin(self.now_s, true.done)
                self._last_start_s = self.now_s
            else:
                self._apply("stopping", action.job, reason=action.why)
                true.ends_at_s = self.now_s + _STOP_S

    def _draw_failure(self, true: _TrueJob) -> None:
        true.fails_at_s = np.inf
        if self._failures_per_s > 0:
            after_s = float(self._generator.exponential(1.0 / self._failures_per_s))
            true.fails_at_s = true.progress_from_s + after_s

    def _advance(self) -> None:
        """Moves the clock to the next moment at which something happens."""
        self._change_load()
        jobs = self.scheduler.jobs
        active = {n: one for n, one in self.true.items() if jobs[n].state in _ACTIVE}
        is_new = self.now_s - self._last_start_s < _FINE_FOR_S
        next_s = min(self.now_s + (_FINE_S if is_new else _COARSE_S), self._load_until_s)
        for one in active.values():
            next_s = min(next_s, one.fails_at_s, one.ends_at_s, one.complete_at_s)
            if not one.is_worked():
                next_s = min(next_s, max(self.now_s, one.progress_from_s) + one.left_s())
        for job in jobs.values():
            if job.state == "pausing" and job.not_before_unix_s > self.now_s:
                next_s = min(next_s, job.not_before_unix_s)
        step_s = max(next_s - self.now_s, 1e-3)
        for one in active.values():
            worked_s = self.now_s + step_s - max(self.now_s, one.progress_from_s)
            if worked_s > 0:
                one.advance(worked_s)
                one.occupied_s += worked_s
        self.now_s += step_s
        for name, one in active.items():
            self._notice(name, one)

    def _change_load(self) -> None:
        if self.now_s >= self._load_until_s:
            self._load_until_s = self.now_s + _LOAD_LASTS_S
            load = float(np.exp(self._generator.normal(0.0, _LOAD_LOG_SIGMA)))
            for one in self.true.values():
                one.load = load

    def _notice(self, name: str, one: _TrueJob) -> None:
        meter = self.predictor.meters[name]
        meter.see(self.now_s, one.done)
        if one.is_worked() and one.complete_at_s == np.inf:
            one.complete_at_s = self.now_s + float(self._generator.uniform(*_END_S))
        is_done = self.now_s >= one.complete_at_s
        if is_done:
            self._apply("done", name)
        elif self.now_s >= one.ends_at_s:
            self._apply("stopped", name)
        elif self.now_s >= one.fails_at_s:
            lost_s = float(self._generator.uniform(0.0, _CHECKPOINT_EVERY_S))
            one.done = max(0.0, one.done - lost_s * one.rate())
            # Its slot stands idle for the pause only if no other job waits; the start counts.
            one.occupied_s += _START_S[1]
            self._apply("failed", name, failure="killed", reason="drawn")
        else:
            return
        meter.end(self.now_s, is_done=is_done)

    def _eta(self) -> Interval:
        predicted = self.predictor.predict(self._done())
        jobs = self.scheduler.jobs
        running = [name for name in predicted if jobs[name].state in _ACTIVE]
        waiting = [name for name in predicted if name not in running]
        running_s = self.scheduler.occupied_s(self.now_s)
        failures = sum(job.failures for job in jobs.values())
        past = Past(failures, running_s, _BACKOFF_S + self.predictor.start_s())
        return predict_end(running, waiting, predicted, self.slots, past, self._eta_generator)


def simulate(seed: int) -> Outcome:
    """Draws a campaign and runs it."""
    return _Simulation(np.random.default_rng(seed)).run()
