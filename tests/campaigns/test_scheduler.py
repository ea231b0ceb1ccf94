"""The scheduler: what begins, stops and is tried again, whatever happens."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcar.campaigns.failures import FAILURE_CLASSES, Limit, default_limit
from rlcar.campaigns.prediction import Prediction
from rlcar.campaigns.scheduler import BACKOFF_AT_MOST_S, Event, Scheduler, Start, Stop

LIMITS = {kind: default_limit(kind, 5, 10.0) for kind in FAILURE_CLASSES}
LENGTHS_S = {"short": 100.0, "long": 9000.0, "middle": 3000.0}


def predictions(lengths_s, source="own", measured_s=1000.0):
    return {
        name: Prediction(length_s, source, 0.1, name, measured_s)
        for name, length_s in lengths_s.items()
    }


def started(scheduler, now_s=0.0, predicted=None):
    """Carries out what should begin; returns the names in their order."""
    predicted = predictions(LENGTHS_S) if predicted is None else predicted
    actions = [one for one in scheduler.decide(now_s, predicted) if isinstance(one, Start)]
    for one in actions:
        scheduler.apply(Event("started", now_s, one.job, slot=one.slot))
    return [one.job for one in actions]


@pytest.fixture
def scheduler():
    return Scheduler(LENGTHS_S, 1, LIMITS)


def test_the_longest_begins_and_a_free_slot_takes_the_next(scheduler):
    assert started(scheduler) == ["long"]
    assert started(scheduler) == []
    scheduler.apply(Event("done", 10.0, "long"))
    assert started(scheduler, 10.0) == ["middle"]
    scheduler.apply(Event("slots", 11.0, slots=2))
    assert started(scheduler, 11.0) == ["short"]


def test_a_failed_job_waits_longer_each_time_and_is_given_up_by_its_class(scheduler):
    now_s, pauses = 0.0, []
    while scheduler.jobs["long"].state != "failed":
        assert started(scheduler, now_s)[0] == "long"
        scheduler.apply(Event("failed", now_s, "long", failure="killed", reason="signal 9"))
        pauses.append(scheduler.jobs["long"].not_before_unix_s - now_s)
        assert "long" not in started(scheduler, now_s)
        for name in ("middle", "short"):
            if scheduler.jobs[name].state == "running":
                scheduler.apply(Event("stopped", now_s, name))
        now_s += pauses[-1]
    assert pauses[:-1] == [10.0, 20.0, 40.0, 80.0, 160.0]
    assert scheduler.jobs["long"].failures == 6
    scheduler.apply(Event("retried", now_s, "long"))
    assert (scheduler.jobs["long"].state, scheduler.jobs["long"].failures) == ("waiting", 0)


@pytest.mark.parametrize(("kind", "tries"), [("configuration", 1), ("nan", 2), ("device", 6)])
def test_each_class_has_its_own_number_of_tries(scheduler, kind, tries):
    for _ in range(tries):
        assert scheduler.jobs["long"].state != "failed"
        scheduler.apply(Event("started", 0.0, "long", slot=0))
        scheduler.apply(Event("failed", 0.0, "long", failure=kind))
    assert scheduler.jobs["long"].state == "failed"


def test_the_pause_never_exceeds_ten_minutes():
    scheduler = Scheduler(["a"], 1, dict.fromkeys(FAILURE_CLASSES, Limit(10**6, 10.0)))
    for _ in range(100):
        scheduler.apply(Event("failed", 0.0, "a", failure="killed"))
    assert scheduler.jobs["a"].not_before_unix_s == BACKOFF_AT_MOST_S


def test_a_long_job_keeps_its_slot_through_a_short_pause_and_a_shorter_one_does_not():
    scheduler = Scheduler(LENGTHS_S, 1, LIMITS)
    assert started(scheduler) == ["long"]
    scheduler.apply(Event("failed", 10.0, "long", failure="killed"))
    assert started(scheduler, 15.0) == [], "the slot waits for the long job"
    assert started(scheduler, 20.0) == ["long"]
    scheduler.apply(Event("failed", 30.0, "long", failure="device"))
    left = predictions({**LENGTHS_S, "long": 500.0})
    assert started(scheduler, 31.0, left) == ["middle"], "30 s are more than 5 % of 500 s"


def test_a_clock_that_is_set_back_neither_prolongs_a_pause_nor_makes_negative_times():
    scheduler = Scheduler(["a"], 1, LIMITS)
    scheduler.apply(Event("started", 1e6, "a", slot=0))
    scheduler.apply(Event("failed", 1e6 + 5.0, "a", failure="killed"))
    assert started(scheduler, 1e6 + 5.0, predictions({"a": 100.0})) == []
    assert scheduler.occupied_s(5.0) == 5.0
    assert started(scheduler, 5.0, predictions({"a": 100.0})) == ["a"]
    assert scheduler.occupied_s(0.0) == 5.0


def test_fewer_slots_stop_the_shortest_and_a_pause_stops_all(scheduler):
    scheduler.apply(Event("slots", 0.0, slots=3))
    started(scheduler)
    scheduler.apply(Event("slots", 1.0, slots=2))
    assert scheduler.decide(1.0, predictions(LENGTHS_S)) == [Stop("short", "slots")]
    scheduler.apply(Event("paused", 2.0))
    stops = scheduler.decide(2.0, predictions(LENGTHS_S))
    assert stops == [Stop(name, "paused") for name in LENGTHS_S]
    for one in stops:
        scheduler.apply(Event("stopping", 2.0, one.job))
        scheduler.apply(Event("stopped", 3.0, one.job))
    assert scheduler.decide(3.0, predictions(LENGTHS_S)) == []
    scheduler.apply(Event("resumed", 4.0))
    assert started(scheduler, 4.0) == ["long", "middle"]


def test_unknown_rates_are_measured_before_the_longest_keeps_the_slot():
    scheduler = Scheduler(LENGTHS_S, 1, LIMITS, probe_s=60.0)
    known = {}

    def predicted():
        return predictions(LENGTHS_S, "guess", 0.0) | predictions(known)

    (first,) = started(scheduler, 0.0, predicted())
    for now_s in (100.0, 200.0):
        (running,) = (job.name for job in scheduler.jobs.values() if job.state == "running")
        known[running] = LENGTHS_S[running]
        stops = scheduler.decide(now_s, predicted())
        if running == "short":  # it needs little more than the probe has taken
            assert stops == []
            scheduler.apply(Event("done", now_s, running))
        else:
            assert stops == [Stop(running, "probe")]
            scheduler.apply(Event("stopping", now_s, running, reason="probe"))
            scheduler.apply(Event("stopped", now_s, running))
        started(scheduler, now_s, predicted())
    known |= LENGTHS_S
    assert first == "long"
    running = [job.name for job in scheduler.jobs.values() if job.state == "running"]
    scheduler.apply(Event("done", 300.0, running[0]))
    assert started(scheduler, 300.0, predicted()) == ["long"]
    assert all(job.probes <= 1 for job in scheduler.jobs.values())


def test_a_finished_campaign_that_begins_again_forgets_failures_and_a_killed_one_does_not(
    scheduler,
):
    scheduler.apply(Event("began", 0.0, slots=1))
    scheduler.apply(Event("failed", 1.0, "long", failure="configuration", reason="wrong"))
    scheduler.apply(Event("began", 2.0, slots=1))
    assert scheduler.jobs["long"].state == "failed"
    scheduler.apply(Event("over", 3.0))
    scheduler.apply(Event("began", 4.0, slots=1))
    assert (scheduler.jobs["long"].state, scheduler.jobs["long"].reason) == ("waiting", "")


def test_slots_that_a_user_has_set_hold_until_the_file_says_another_number(scheduler):
    for event, expected in (
        (Event("began", 0.0, slots=2), 2),
        (Event("slots", 1.0, slots=5), 5),
        (Event("began", 2.0, slots=2), 5),
        (Event("began", 3.0, slots=3), 3),
    ):
        scheduler.apply(event)
        assert scheduler.slots == expected


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["done", "failed", "stopped", "slots", "paused", "resumed", "retried"]),
        st.integers(0, 5),
        st.floats(0.0, 700.0),
        st.sampled_from(FAILURE_CLASSES),
        st.integers(1, 4),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(ACTIONS, st.lists(st.floats(1.0, 1e6), min_size=1, max_size=6), st.booleans())
def test_whatever_happens_slots_are_never_shared_and_the_journal_gives_the_same_state(
    actions, lengths_s, has_probes
):
    names = [f"job-{index}" for index in range(len(lengths_s))]
    probe_s = 60.0 if has_probes else 0.0
    scheduler = Scheduler(names, 2, LIMITS, probe_s)
    predicted = predictions(dict(zip(names, lengths_s, strict=True)))
    journal, now_s = [], 0.0

    def apply(event):
        journal.append(event.tree())
        scheduler.apply(event)

    def decide():
        for one in scheduler.decide(now_s, predicted):
            if isinstance(one, Start):
                apply(Event("started", now_s, one.job, slot=one.slot))
            else:
                apply(Event("stopping", now_s, one.job, reason=one.why))

    apply(Event("began", 0.0, slots=2))
    for kind, index, seconds, failure, slots in actions:
        now_s += seconds
        decide()
        active = [job.name for job in scheduler.jobs.values() if job.slot is not None]
        if kind == "slots":
            apply(Event("slots", now_s, slots=slots))
        elif kind in ("paused", "resumed"):
            apply(Event(kind, now_s))
        elif kind == "retried":
            apply(Event(kind, now_s, names[index % len(names)]))
        elif active:
            name = active[index % len(active)]
            apply(Event(kind, now_s, name, failure=failure if kind == "failed" else None))
        taken = [job.slot for job in scheduler.jobs.values() if job.slot is not None]
        assert len(taken) == len(set(taken))
        for job in scheduler.jobs.values():
            assert (job.slot is not None) == (job.state in ("running", "stopping"))
    again = Scheduler(names, 2, LIMITS, probe_s)
    for tree in journal:
        again.apply(Event.from_tree(tree))
    assert [dataclasses.asdict(job) for job in again.jobs.values()] == [
        dataclasses.asdict(job) for job in scheduler.jobs.values()
    ]
    assert (again.slots, again.is_paused, again.spans) == (
        scheduler.slots,
        scheduler.is_paused,
        scheduler.spans,
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1.0, 1e5), min_size=1, max_size=12), st.integers(1, 4))
def test_every_campaign_ends_and_no_slot_stands_idle_while_a_job_waits(lengths_s, slots):
    names = [f"job-{index}" for index in range(len(lengths_s))]
    lengths = dict(zip(names, lengths_s, strict=True))
    scheduler = Scheduler(names, slots, LIMITS)
    ends, now_s = {}, 0.0
    while not scheduler.is_over():
        for name in started(scheduler, now_s, predictions(lengths)):
            ends[name] = now_s + lengths[name]
        assert len(ends) == min(slots, sum(j.state != "done" for j in scheduler.jobs.values()))
        name = min(ends, key=ends.get)
        now_s = ends.pop(name)
        scheduler.apply(Event("done", now_s, name))
    assert now_s <= sum(lengths_s) / slots + max(lengths_s) + 1e-6  # the bound of list scheduling
