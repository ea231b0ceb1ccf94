"""The state of a rollout follows from its events, and what is due from its state."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.delivery import events
from serve.delivery.events import Entry
from serve.delivery.progress import due_event
from serve.delivery.sequential import Evidence
from serve.delivery.specification import MAX_MEASUREMENTS, parse_specification
from serve.delivery.state import RolloutError, extend, fold

STEPS = [
    {"setWeight": 10},
    {"pause": {"duration": "10m"}},
    {"setWeight": 50},
    {"pause": {}},
    {"analysis": {"metrics": [{"name": "faults", "value": "errorShare", "interval": "1s",
                               "count": 3, "failureCondition": "> 0.02",
                               "successCondition": "<= 0.01"}]}},
]  # fmt: skip


def started(steps=None, **strategy):
    tree = {"strategy": strategy or {"canary": {"steps": STEPS if steps is None else steps}}}
    tree = parse_specification(tree).tree()
    return events.Started("r1", 1, 2, tree)


class Journal:
    """A rollout whose time the test sets."""

    def __init__(self, *happened, value=0.0, evidence=None):
        self.now_s, self.entries, self.state = 0.0, [], None
        self.value, self.evidence = value, evidence or Evidence(0.0, 0.0, 0)
        self.add(*(happened or [started()]))

    def add(self, *happened):
        for event in happened:
            entry = Entry(len(self.entries) + 1, self.now_s, "test", event)
            self.state = extend(self.state, entry)
            self.entries.append(entry)
        return self.state

    def run(self, for_s=0.0):
        """Lets time pass in steps of a second, with everything that is due."""
        end_s = self.now_s + for_s
        while True:
            while (
                event := due_event(
                    self.state, self.now_s, lambda _: self.value, lambda _: self.evidence
                )
            ) is not None:
                self.add(event)
                if isinstance(event, events.Promoting):
                    self.add(events.AliasMoved(self.state.candidate))
            if self.now_s >= end_s:
                return self.state
            self.now_s += 1.0


def test_a_rollout_goes_through_its_steps_and_is_promoted():
    journal = Journal()
    assert (journal.run().phase, journal.state.weight) == ("Paused", 10.0)
    assert journal.run(599).weight == 10.0
    assert (journal.run(1).phase, journal.state.weight) == ("Paused", 50.0)
    assert journal.run(10_000).step == 3  # it waits for a person
    journal.add(events.Resumed())
    state = journal.run(3)
    assert (state.phase, state.weight, state.is_promoted) == ("Healthy", 100.0, True)
    assert fold(journal.entries) == state  # as after a restart


def test_an_aborted_rollout_gives_every_session_back_and_can_be_retried():
    journal = Journal()
    journal.run()
    state = journal.add(events.Aborted("a person's wish"))
    assert (state.phase, state.weight, state.message) == ("Degraded", 0.0, "a person's wish")
    assert journal.run(1000) == state
    state = journal.add(events.Retried("r2"))
    assert (state.rollout, state.phase, state.step) == ("r2", "Progressing", 0)


@pytest.mark.parametrize(
    ("value", "phase", "said"),
    [
        (0.05, "Degraded", "faults: errorShare 0.05 (> 0.02) in 1 of 1 measurements"),
        (0.015, "Inconclusive", "neither good nor bad in 1 of 1"),
    ],
)
def test_an_analysis_ends_with_its_first_exceeded_limit(value, phase, said):
    journal = Journal(started(STEPS[4:]), value=value)
    state = journal.run(2)
    assert state.phase == phase
    assert said in state.message


def test_an_analysis_without_data_never_passes():
    journal = Journal(started(STEPS[4:]), value=None)
    assert journal.run(4).phase == "Progressing"  # four measurements without data are tolerated
    assert journal.run(1).phase == "Degraded"
    assert "errorShare had no data in 5 measurements in a row" in journal.state.message


def test_measurements_without_data_do_not_count():
    journal = Journal(started(STEPS[4:]))
    journal.run(1)
    journal.value = None
    journal.run(3)
    journal.value = 0.0
    assert journal.run(1).phase == "Progressing"  # five measurements, two of them with data
    assert journal.run(1).phase == "Healthy"


def test_an_analysis_whose_data_are_often_missing_ends_with_a_person():
    metric = STEPS[4]["analysis"]["metrics"][0] | {"count": 600}
    journal = Journal(started([{"analysis": {"metrics": [metric]}}]))
    for second in range(MAX_MEASUREMENTS + 10):
        journal.value = None if second % 2 else 0.0
        journal.run(1)
    assert journal.state.phase == "Inconclusive"
    assert "had data in 500 of 1000 measurements, and 600 with data are" in journal.state.message
    assert sum(isinstance(one.event, events.Measured) for one in journal.entries) == 1000


def test_a_person_judges_an_inconclusive_analysis():
    journal = Journal(started(STEPS[4:]), value=0.015)
    assert journal.run(1000).phase == "Inconclusive"
    journal.add(events.Resumed())
    assert journal.run().phase == "Healthy"


@pytest.mark.parametrize("value", [1.0, None])
def test_a_dry_run_has_no_effect(value):
    metric = STEPS[4]["analysis"]["metrics"][0] | {"dryRun": True}
    journal = Journal(started([{"analysis": {"metrics": [metric]}}]), value=value)
    assert journal.run(3).phase == "Healthy"


def test_a_held_rollout_keeps_the_rest_of_its_pause():
    journal = Journal()
    journal.run(300)
    journal.add(events.Paused())
    assert journal.run(5000).weight == 10.0
    journal.add(events.Resumed())
    assert journal.run(299).weight == 10.0
    assert journal.run(1).weight == 50.0


@pytest.mark.parametrize(
    ("evidence", "phase"),
    [
        (Evidence(5.0, 10.0, 30), "Healthy"),
        (Evidence(5.0, -10.0, 30), "Degraded"),
        (Evidence(1.0, 10.0, 30), "Progressing"),
        (Evidence(1.0, 10.0, 500), "Inconclusive"),
        (Evidence(1.0, 10.0, 30, is_cut=True), "Inconclusive"),
    ],
)
def test_the_better_of_two_versions_stays(evidence, phase):
    assert Journal(started(ab={}), evidence=evidence).run().phase == phase


def test_a_shadow_is_never_promoted():
    journal = Journal(started(shadow={"duration": "10s", "weight": 30}))
    assert (journal.run(9).shadow_weight, journal.state.weight) == (30.0, 0.0)
    with pytest.raises(RolloutError, match="a shadow rollout is not promoted"):
        journal.add(events.Promoting("a person"))
    state = journal.run(1)
    assert (state.phase, state.is_promoted, state.shadow_weight) == ("Healthy", False, 0.0)


def test_a_move_of_the_alias_that_is_due_can_be_dropped():
    journal = Journal(started(), events.Promoting("a person"))
    state = journal.add(events.Aborted("it was a mistake"))
    assert (state.phase, state.weight, state.pending_alias) == ("Degraded", 0.0, None)
    journal = Journal(started(blueGreen={}))
    journal.run()
    journal.add(events.Undone("too bumpy"))
    state = journal.add(events.Aborted("version 1 is gone"))
    assert (state.phase, state.is_promoted, state.pending_alias) == ("Healthy", True, None)
    journal.add(events.Undone("too bumpy"))
    with pytest.raises(RolloutError, match="yet to move to version 1 for rollout r1: wait until"):
        journal.add(started())
    journal.add(events.AliasMoved(1))
    assert journal.add(started()).phase == "Progressing"


def test_entries_that_earlier_versions_have_written_are_still_read():
    promoted = (started(blueGreen={}), events.Promoting("x"), events.AliasMoved(2))
    undone = (*promoted, events.Undone("y"), started())
    entries = [Entry(number, 0.0, "test", one) for number, one in enumerate(undone, 1)]
    assert fold(entries).phase == "Progressing"
    paused = (started([{"pause": {}}]), events.Paused(), events.Resumed(), events.Resumed())
    entries = [Entry(number, 0.0, "test", one) for number, one in enumerate(paused, 1)]
    assert fold(entries).step == 1


def test_after_an_outage_one_measurement_is_due():
    journal = Journal(started(STEPS[4:]))
    journal.now_s = 100.0
    journal.run()
    assert journal.state.tallies["faults"].measured == 1
    assert journal.run(2).phase == "Healthy"


def test_a_value_that_is_not_finite_is_no_value():
    journal = Journal(started(STEPS[4:]), value=float("inf"))
    journal.run(1)
    (measurement,) = journal.entries[-1].event.measurements
    assert (measurement.value, measurement.result) == (None, "error")


def test_a_promotion_can_be_undone_once():
    journal = Journal(started(blueGreen={}))
    assert journal.run().is_promoted
    assert journal.add(events.Undone("too bumpy")).pending_alias == 1
    state = journal.add(events.AliasMoved(1))
    assert (state.phase, state.weight, state.pending_alias) == ("Degraded", 0.0, None)
    with pytest.raises(RolloutError, match="only a promoted rollout can be undone"):
        journal.add(events.Undone("again"))


@pytest.mark.parametrize(
    ("happened", "event", "said"),
    [
        ([], events.Paused(), "no rollout yet"),
        ([started()], started(), "rollout r1 of version 2 is still Progressing"),
        ([started()], events.Undone(""), "only a promoted rollout"),
        ([started()], events.Retried("r2"), "only an aborted rollout"),
        ([started()], events.Resumed(), "is Progressing, not paused"),
        ([started(), events.Aborted("x")], events.Promoting("y"), r"has ended \(Degraded\): x"),
        ([started(), events.Promoting("x")], started(), "is still"),
        ([started([{"pause": {}}])], events.Paused(), "rollout r1 is paused already"),
        ([started(), events.Paused()], events.Paused(), "rollout r1 is paused already"),
        ([started(), events.Undecided("x")], events.Paused(), "and waits for a person already"),
    ],
)
def test_what_the_state_does_not_allow_is_one_sentence(happened, event, said):
    entries = [Entry(number, 0.0, "test", one) for number, one in enumerate(happened, 1)]
    with pytest.raises(RolloutError, match=said):
        extend(fold(entries), Entry(len(entries) + 1, 0.0, "test", event))


COMMANDS = [
    events.Paused(), events.Resumed(), events.Aborted("x"), events.Promoting("x"),
    events.Retried("r2"), events.Undone("x"), events.AliasMoved(1), events.AliasMoved(2), None,
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(COMMANDS), st.floats(0.0, 700.0)), max_size=12))
def test_whatever_people_do_the_weight_only_grows_or_ends(commands):
    journal = Journal()
    weights = [0.0]
    for command, wait_s in commands:
        journal.now_s += wait_s
        try:
            state = journal.run() if command is None else journal.add(command)
        except RolloutError:
            continue
        weights.append(state.weight)
        assert 0.0 <= state.weight <= 100.0
        assert state.phase != "Degraded" or state.weight == 0.0 or state.pending_alias is not None
        assert fold(journal.entries) == state
    for before, after in itertools.pairwise(weights):
        assert after >= before or after == 0.0 or after == 10.0  # aborted, or retried
