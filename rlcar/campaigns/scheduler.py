"""Decides which job runs in which slot. It has no clock, no process and no file.

Everything that happens to a campaign is an `Event`; `apply` is the only function that changes the
state, so the state of a campaign that was killed is the result of its journal's events. `decide`
says what should begin and end now. `benchmarks/campaign.py` drives the same code with synthetic
durations and failures.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Self

from rlcar.campaigns.failures import FailureClass, Limit
from rlcar.campaigns.prediction import Prediction

JOB_STATES = ("waiting", "running", "stopping", "pausing", "done", "failed")
State = Literal["waiting", "running", "stopping", "pausing", "done", "failed"]
BACKOFF_AT_MOST_S = 600.0

# A probe stops a job only if that costs little: the job still needs many times what the probe took,
# and the job that takes its place needs clearly longer.
_PROBES_LEFT = 10.0
_CLEARLY_LONGER = 1.25
_BEGUN_SHARE = 0.1

# A job that failed keeps its slot through a pause that is short beside what it still needs. If
# another job took the slot, the longest job might wait for hours until the next one is free.
_KEPT_SHARE = 0.05

# Of the campaign; of a job's process; what a user asked for; the rate of a job. A campaign that
# begins after one that was over forgets earlier failures.
EventKind = Literal[
    "began", "over",
    "started", "stopping", "stopped", "failed", "done",
    "slots", "paused", "resumed", "retried",
    "measured",
]  # fmt: skip


class Event(NamedTuple):
    """Something that happened. Fields without a meaning for its kind are empty."""

    kind: EventKind
    at_unix_s: float
    job: str = ""
    slot: int | None = None
    slots: int | None = None
    failure: FailureClass | None = None
    reason: str = ""
    process: dict[str, Any] | None = None  # as `process_state.identity` describes it
    figures: dict[str, float] | None = None
    command: str = ""  # identifier of the command that asked for it

    def tree(self) -> dict[str, Any]:
        """Returns the fields that have a value, for the journal."""
        return {
            name: value for name, value in self._asdict().items() if value not in (None, "", {})
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Returns the event of a journal's entry; raises TypeError for anything else."""
        return cls(**tree)


class Span(NamedTuple):
    """One stay of a job in a slot."""

    job: str
    slot: int
    from_unix_s: float
    until_unix_s: float | None  # None while it lasts
    how: str = ""  # done, failed or stopped

    def seconds(self, now_unix_s: float) -> float:
        """Returns its length so far; 0 if the clock was set back meanwhile."""
        until_s = now_unix_s if self.until_unix_s is None else self.until_unix_s
        return max(0.0, until_s - self.from_unix_s)


@dataclasses.dataclass
class JobState:
    """One job of the queue."""

    name: str
    state: State = "waiting"
    slot: int | None = None  # while it runs or stops
    failures: int = 0
    freezes: int = 0  # of the failures, those that ended a frozen process
    by_class: Counter[str] = dataclasses.field(default_factory=Counter)
    failure: str = ""  # class of the last failure
    reason: str = ""  # of the last failure
    not_before_unix_s: float = 0.0  # time of the next start
    started_unix_s: float = 0.0  # time of the last start
    probes: int = 0  # times that it was stopped in favour of a job that needs longer
    process: dict[str, Any] | None = None


class Start(NamedTuple):
    """A job is to begin."""

    job: str
    slot: int


class Stop(NamedTuple):
    """A job is to save and stop; it continues later."""

    job: str
    why: Literal["paused", "slots", "probe"]


class Scheduler:
    """The state of a campaign, and what follows from it."""

    def __init__(
        self,
        names: Iterable[str],
        slots: int,
        limits: Mapping[FailureClass, Limit],
        probe_s: float = 0.0,
    ):
        """`limits` holds every class of failures."""
        self.jobs = {name: JobState(name) for name in names}
        self.slots, self.limits, self.probe_s = slots, limits, probe_s
        self.is_paused = False
        self.began_unix_s: float | None = None
        self.spans: list[Span] = []
        self.commands: set[str] = set()  # that were carried out
        self._file_slots: int | None = None
        self._is_ended = False

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return all(job.state in ("done", "failed") for job in self.jobs.values())

    def apply(self, event: Event) -> None:
        """Changes the state as an event says; events of jobs that are gone change nothing."""
        if event.command:
            self.commands.add(event.command)
        if event.kind == "began":
            self._began(event)
        elif event.kind == "over":
            self._is_ended = True
        elif event.kind == "slots":
            assert event.slots is not None
            self.slots = event.slots
        elif event.kind in ("paused", "resumed"):
            self.is_paused = event.kind == "paused"
        elif event.job in self.jobs:
            self._apply_to(self.jobs[event.job], event)

    def _began(self, event: Event) -> None:
        if self._is_ended or self.began_unix_s is None:
            self.began_unix_s, self.spans = event.at_unix_s, []
            self._file_slots = None
            for job in self.jobs.values():
                if job.state != "done":
                    self.jobs[job.name] = JobState(job.name)
        # The number that a user has set holds until the file says another one.
        if event.slots != self._file_slots and event.slots is not None:
            self.slots = self._file_slots = event.slots
        self._is_ended = False

    def _apply_to(self, job: JobState, event: Event) -> None:
        if event.kind == "started":
            assert event.slot is not None
            job.state, job.slot, job.process = "running", event.slot, event.process
            job.started_unix_s = event.at_unix_s
            self.spans.append(Span(job.name, event.slot, event.at_unix_s, None))
        elif event.kind == "stopping":
            job.state = "stopping"
            job.probes += event.reason == "probe"
        elif event.kind in ("stopped", "done", "failed"):
            self._end_span(job, event)
            job.slot = job.process = None
            job.state = "done" if event.kind == "done" else "waiting"
            if event.kind == "failed":
                self._failed(job, event)
        elif event.kind == "retried" and job.state == "failed":
            self.jobs[job.name] = JobState(job.name)

    def _failed(self, job: JobState, event: Event) -> None:
        kind: FailureClass = event.failure or "unknown"
        limit = self.limits[kind]
        job.failures += 1
        job.freezes += kind == "frozen"
        job.by_class[kind] += 1
        job.failure, job.reason = kind, event.reason
        if job.by_class[kind] > limit.retries:
            job.state = "failed"
            return
        pause_s = limit.backoff_s * 2.0 ** min(job.by_class[kind] - 1, 32)
        job.state = "pausing"
        job.not_before_unix_s = event.at_unix_s + min(pause_s, BACKOFF_AT_MOST_S)

    def _end_span(self, job: JobState, event: Event) -> None:
        for index in range(len(self.spans) - 1, -1, -1):
            span = self.spans[index]
            if span.job == job.name and span.until_unix_s is None:
                ended = span._replace(until_unix_s=event.at_unix_s, how=event.kind)
                self.spans[index] = ended
                return

    def occupied_s(self, now_unix_s: float) -> float:
        """Returns how long jobs have stayed in slots so far, all of them together."""
        return sum(span.seconds(now_unix_s) for span in self.spans)

    def decide(self, now_unix_s: float, predicted: Mapping[str, Prediction]) -> list[Start | Stop]:
        """Returns what should begin and end now.

        `predicted` holds every job that is neither done nor failed.
        """
        running = [job for job in self.jobs.values() if job.state == "running"]
        if self.is_paused:
            return [Stop(job.name, "paused") for job in running]
        shortest_first = sorted(running, key=lambda job: predicted[job.name].remaining_s)
        excess = max(0, len(running) - self.slots)
        stops: list[Start | Stop] = [Stop(job.name, "slots") for job in shortest_first[:excess]]
        if stops:
            return stops
        taken = {job.slot for job in self.jobs.values() if job.state in ("running", "stopping")}
        free = [slot for slot in range(self.slots) if slot not in taken]
        free = free[: max(0, self.slots - len(taken))]
        queue = self._queue(now_unix_s, predicted)
        starts = [
            Start(job.name, slot)
            for job, slot in zip(queue, free, strict=False)
            if self._is_ready(job, now_unix_s)
        ]
        ready = [job for job in queue if self._is_ready(job, now_unix_s)]
        if free or not ready or any(job.state == "stopping" for job in self.jobs.values()):
            return [*starts]
        return [*self._probed(now_unix_s, predicted, shortest_first, ready)]

    def _is_ready(self, job: JobState, now_unix_s: float) -> bool:
        return job.state == "waiting" or self._pause_s(job, now_unix_s) <= 0.0

    def _pause_s(self, job: JobState, now_unix_s: float) -> float:
        """Returns how long a job that failed still waits."""
        left_s = job.not_before_unix_s - now_unix_s
        # No pause is longer than that: the clock was set back.
        return left_s if left_s <= BACKOFF_AT_MOST_S + 1.0 else 0.0

    def _queue(self, now_unix_s: float, predicted: Mapping[str, Prediction]) -> list[JobState]:
        """Returns the jobs that may begin, in the order in which they should.

        First comes one job of each kind whose rate is unknown, so that it gets measured; then the
        longest. A job in a short pause is among them, so that a slot waits for it.
        """
        ready = [
            job
            for job in self.jobs.values()
            if job.state == "waiting"
            or (
                job.state == "pausing"
                and self._pause_s(job, now_unix_s) <= _KEPT_SHARE * predicted[job.name].remaining_s
            )
        ]
        ready.sort(key=lambda job: predicted[job.name].remaining_s, reverse=True)
        if self.probe_s <= 0:
            return ready
        measuring = {
            predicted[job.name].kind for job in self.jobs.values() if job.state == "running"
        }
        first: dict[str, JobState] = {}
        for job in ready:
            one = predicted[job.name]
            if one.is_guess and one.kind not in measuring:
                measuring.add(one.kind)
                first[job.name] = job
        return [*first.values(), *(job for job in ready if job.name not in first)]

    def _probed(
        self,
        now_unix_s: float,
        predicted: Mapping[str, Prediction],
        shortest_first: list[JobState],
        queue: list[JobState],
    ) -> list[Stop]:
        """Returns the job that should give its slot to one that is longer, or to be measured."""
        if self.probe_s <= 0:
            return []
        longest = max(queue, key=lambda job: predicted[job.name].remaining_s)
        running_kinds = {predicted[job.name].kind for job in shortest_first}
        head = predicted[queue[0].name]
        must_measure = head.is_guess and head.kind not in running_kinds
        for job in shortest_first:
            own = predicted[job.name]
            is_measured = own.source == "own" and own.measured_s >= self.probe_s
            if not is_measured or job.probes or own.remaining_s < _PROBES_LEFT * self.probe_s:
                continue
            other = predicted[longest.name]
            is_longer = (
                not other.is_guess
                and other.remaining_s > _CLEARLY_LONGER * own.remaining_s
                and now_unix_s - job.started_unix_s <= _BEGUN_SHARE * own.remaining_s
            )
            if must_measure or is_longer:
                return [Stop(job.name, "probe")]
        return []
