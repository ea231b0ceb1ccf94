"""What one process decides from the answers that it counts, without a server or real time."""

import asyncio
import shutil

import numpy as np
import pytest

from rlcar.errors import RegistryError, RegistryUnavailableError
from rlcar.registry import Registry
from rlcar.registry.shared_counts import SharedCounts
from serve.api.schema import CheckedRequest, ObservationBatch
from serve.delivery import events
from serve.delivery.counts import ArmCounts, RolloutCounts
from serve.delivery.integrations import Integrations
from serve.delivery.operator import Operator
from serve.delivery.specification import default_specification, parse_specification
from serve.observing.metrics import ServerMetrics
from serve.policy.action_service import ActionService
from serve.policy.alias_follower import AliasFollower
from serve.policy.rollout_arms import ActiveRollout, RolloutArms
from serve.policy.rollout_follower import RolloutFollower
from serve.policy.sessions import Session
from serve.settings import make_settings
from tests.serve.served import damage, publish

PER_S = 20  # answers of the candidate, and as many of the stable version


@pytest.fixture
def arms(versions, clock):
    arms = RolloutArms(clock)
    rollback = default_specification().rollback
    arms.show(ActiveRollout("r1", 1, versions[1], 50.0, 0.0, rollback))
    return arms


def drive(arms, versions, clock, seconds, *, slower=1.0, fault_share=0.0, seed=0):
    """Answers for some seconds; returns the time of the alarm, or None."""
    rng = np.random.default_rng(seed)
    began_s = clock.now_s
    latencies_s = 0.0004 * np.exp(0.4 * rng.normal(size=(seconds * PER_S, 2)))
    faults = rng.random(seconds * PER_S) < fault_share
    for answer in range(seconds * PER_S):
        clock.now_s += 1.0 / PER_S
        stable_s, candidate_s = latencies_s[answer]
        arms.add(versions[0], None, False, stable_s)
        fault = "errors" if faults[answer] else None
        arms.add(versions[1], fault, fault is not None, slower * candidate_s)
        if answer % (PER_S // 2) == 0:
            arms.check_latency()
        if arms.alarm is not None:
            return clock.now_s - began_s
    return None


def test_a_clean_candidate_is_not_rolled_back_in_ten_minutes(versions, arms, clock):
    for window in range(3):
        assert drive(arms, versions, clock, 600, seed=window) is None
    assert arms.counts.candidate.answers == arms.counts.stable.answers == 3 * 600 * PER_S


@pytest.mark.parametrize("seed", range(10))
def test_doubled_latency_is_found_within_ten_seconds(versions, arms, clock, seed):
    drive(arms, versions, clock, 60, seed=seed)
    assert drive(arms, versions, clock, 60, slower=2.0, seed=seed + 100) <= 10.0
    assert "times the" in arms.alarm.reason


@pytest.mark.parametrize("seed", range(10))
def test_one_fault_in_twenty_is_found_soon(versions, arms, clock, seed):
    assert drive(arms, versions, clock, 60, fault_share=0.05, seed=seed) <= 20.0
    assert "% > 1 %" in arms.alarm.reason


def test_a_fault_after_many_sound_answers_is_told_as_a_recent_one(versions, arms, clock):
    drive(arms, versions, clock, 120)
    assert drive(arms, versions, clock, 20, fault_share=1.0) <= 1.0
    assert arms.alarm.reason == "errors lately > 1 % (4 of 2404 answers in all)"


def test_sessions_of_many_cars_are_not_timed(versions, arms):
    for _ in range(100):
        arms.add(versions[0], None, False, 0.001)
        arms.add(versions[1], None, False, None)
    arms.check_latency()
    assert arms.alarm is None
    assert (arms.counts.candidate.answers, arms.counts.candidate.timed) == (100, 0)


def drive_late(arms, versions, clock, seconds, stable_share, share, *, per_s=PER_S, seed=0):
    """Answers for some seconds, a share of them late; returns the time of the alarm, or None."""
    rng = np.random.default_rng(seed)
    began_s = clock.now_s
    for answer in range(seconds * per_s):
        clock.now_s += 1.0 / per_s
        for version, late_share in zip(versions, (stable_share, share), strict=True):
            if late_share is not None:
                fault = "late" if rng.random() < late_share else None
                arms.add(version, fault, fault is not None, None)
        if answer % (per_s // 2) == 0:
            arms.check_latency()
        if arms.alarm is not None:
            return clock.now_s - began_s
    return None


@pytest.mark.parametrize(("share", "limit_s"), [(1.0, 3.0), (0.2, 10.0), (0.1, 20.0)])
def test_a_candidate_that_answers_late_is_found(versions, arms, clock, share, limit_s):
    drive_late(arms, versions, clock, 60, 0.0, 0.0)
    assert drive_late(arms, versions, clock, 60, 0.0, share) <= limit_s
    assert "late answers" in arms.alarm.reason
    assert "by version 1" in arms.alarm.reason


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_a_machine_that_delays_both_versions_rolls_nothing_back(versions, arms, clock, share):
    for window in range(3):
        assert drive_late(arms, versions, clock, 200, share, share, seed=window) is None


def test_without_the_stable_version_most_answers_must_be_late(versions, arms, clock):
    assert drive_late(arms, versions, clock, 60, None, 0.3) is None
    assert drive_late(arms, versions, clock, 60, None, 1.0) <= 15.0


def test_one_burst_of_load_is_no_fault(versions, arms, clock):
    drive_late(arms, versions, clock, 60, None, 0.0)
    for _ in range(30):
        arms.add(versions[1], "late", True, None)
    arms.check_latency()
    assert arms.alarm is None


def test_late_is_what_misses_the_servers_own_deadline(folder, versions, arms, clock):
    settings = make_settings(registry=str(folder), deadline_ms=100.0)
    metrics = ServerMetrics()
    follower = AliasFollower(Registry(folder), "champion", metrics)
    follower.current = versions[0]
    service = ActionService(settings, follower, metrics, clock)
    service.arms = arms

    def ask(session, upload_s, deadline_ms):
        batch = ObservationBatch(np.full((1, 6), 0.5, np.float32), np.zeros(1, bool))
        request = CheckedRequest(batch, False, session, None, deadline_ms, None)
        received_s, clock.now_s = clock.now_s, clock.now_s + upload_s
        return asyncio.run(service.act(request, "me", received_s)).source

    for number in range(20):
        assert ask(f"car-{number}", upload_s=0.05, deadline_ms=1.0) == "fallback"
        assert ask(f"car-{number}", upload_s=0.2, deadline_ms=None) == "fallback"
    service.close()
    for arm in (arms.counts.stable, arms.counts.candidate):
        assert arm.answers > 0
        assert (arm.late, arm.fallbacks, arm.latency_s) == (0, 0, 0.0)


def test_faults_of_the_stable_version_do_not_count(versions, arms):
    for _ in range(100):
        arms.add(versions[0], "non_finite", True, 0.001)
    assert arms.alarm is None
    assert arms.counts.stable.fallbacks == 100


def test_after_an_alarm_no_session_is_the_candidates(versions, arms):
    assert {arms.model_for(f"car-{n}", versions[0]).number for n in range(50)} == {1, 2}
    arms.raise_alarm("it smokes", {})
    assert {arms.model_for(f"car-{n}", versions[0]).number for n in range(50)} == {1}


def test_a_shadow_compares_actions_of_the_same_observation(versions, arms):
    session = Session(versions[0], 3, 8)
    observation, first = np.full((3, 6), 0.5, np.float32), np.ones(3, bool)
    own, _ = versions[1].policy.act(versions[1].policy.initial_state(3), observation, first)
    arms.shadow(session, observation, first, own)
    assert (arms.counts.shadow.pairs, arms.counts.shadow.differing) == (3, 0)
    again, _ = versions[1].policy.act(session.shadow.state, observation, ~first)
    arms.shadow(session, observation, ~first, -np.sign(own))
    counts = arms.counts.shadow
    assert counts.pairs == 6
    assert counts.sign_flips == int((np.abs(again) > 0.05).any(axis=1).sum()) > 0
    assert counts.jerk_stable > counts.jerk_candidate


def test_a_shadow_that_differs_in_the_last_number_alone_is_seen(versions, arms):
    session = Session(versions[0], 3, 8)
    observation, first = np.full((3, 6), 0.5, np.float32), np.ones(3, bool)
    sent, _ = versions[1].policy.act(versions[1].policy.initial_state(3), observation, first)
    sent[:, -1] += 0.5
    arms.shadow(session, observation, first, sent)
    assert (arms.counts.shadow.pairs, arms.counts.shadow.differing) == (3, 3)


@pytest.fixture
def follower(folder, arms):
    registry = Registry(folder)
    metrics = ServerMetrics()
    alias_follower = AliasFollower(registry, "champion", metrics)
    operator = Operator(registry, "champion", "me")
    return RolloutFollower(operator, alias_follower, arms, metrics, Integrations())


class _State:
    rollout, weight, specification = "r1", 50.0, default_specification()


def test_faults_that_no_server_notices_alone_are_found_together(follower, arms):
    # Three faults are below the limit of one server's test.
    counts = {name: RolloutCounts(candidate=ArmCounts(answers=20, errors=3)) for name in ("a", "b")}
    follower.pooled = RolloutCounts(candidate=ArmCounts(answers=40, errors=6))
    follower._test(_State, {"a": counts["a"]})
    assert arms.alarm is None
    follower._test(_State, counts)
    assert "errors 15 % > 1 % (6 of 40 answers)" in arms.alarm.reason


def test_worse_laps_roll_back_and_better_ones_do_not(follower, arms):
    rng = np.random.default_rng(0)
    for loss, is_alarm in ((-0.2, False), (0.2, True)):
        arms.counts = RolloutCounts()
        for _ in range(20):
            arms.add_outcome(1, 800.0 + 60.0 * rng.normal(), True)
            arms.add_outcome(2, 800.0 * (1 - loss) + 60.0 * rng.normal(), True)
            arms.add_outcome(7, 0.0, False)  # of a version that takes no part
        follower.pooled = arms.counts
        follower._test(_State, {})
        assert (arms.alarm is not None) == is_alarm
    assert "reward -" in arms.alarm.reason


def test_one_session_cannot_report_without_end(versions, arms):
    session = Session(versions[0], 1, 8)
    assert sum(arms.admit_lap(session) for _ in range(1500)) == 1000
    assert arms.admit_lap(Session(versions[0], 1, 8))


class Fleet:
    """One server's followers on a registry of their own, without the server."""

    def __init__(self, folder, arms):
        self.registry, self.metrics = Registry(folder), ServerMetrics()
        self.operator = Operator(self.registry, "champion", "me")
        self.alias_follower = AliasFollower(self.registry, "champion", self.metrics)
        self.alias_follower.load_first()
        self.arms = arms
        self.follower = RolloutFollower(
            self.operator, self.alias_follower, arms, self.metrics, Integrations()
        )

    def start(self, *steps, enabled=True):
        steps = list(steps or ({"setWeight": 50}, {"pause": {}}))
        tree = {"strategy": {"canary": {"steps": steps}}, "rollback": {"enabled": enabled}}
        return self.operator.start(2, parse_specification(tree), lambda _: None)

    def turn(self):
        asyncio.run(self.follower.turn_safely())
        return self.operator.read().state


@pytest.fixture
def fleet(folder, tmp_path, clock):
    shutil.copytree(folder, tmp_path / "models")
    publish(tmp_path / "models", seed=3, alias=None)
    return Fleet(tmp_path / "models", RolloutArms(clock))


def test_a_candidate_that_cannot_be_read_now_is_tried_again(fleet, monkeypatch, caplog):
    fleet.start()
    read = Registry.open

    def fail(*_):
        raise RegistryUnavailableError("the disk hangs")

    monkeypatch.setattr(Registry, "open", fail)
    assert fleet.turn().phase == "Progressing"
    assert fleet.arms.active is None
    assert "the disk hangs" in caplog.text
    monkeypatch.setattr(Registry, "open", read)
    assert fleet.turn().phase == "Paused"
    assert fleet.arms.active.candidate.number == 2


@pytest.mark.parametrize("enabled", [True, False])
def test_a_damaged_candidate_ends_the_rollout_unless_rollback_is_off(fleet, tmp_path, enabled):
    fleet.start(enabled=enabled)
    damage(tmp_path / "models", 2)
    state = fleet.turn()
    assert fleet.arms.active is None
    assert fleet.metrics.rollbacks == int(enabled)
    assert (state.phase == "Degraded") == enabled
    assert enabled == ("cannot be loaded" in state.message)


def test_a_server_that_cannot_write_still_protects_its_cars(fleet, monkeypatch, caplog):
    fleet.start()
    fleet.turn()

    def refuse(*_):
        raise RegistryError("the folder is read-only")

    monkeypatch.setattr(SharedCounts, "write", refuse)
    for _ in range(3):
        fleet.arms.counts.candidate.answers += 100
        fleet.arms.counts.candidate.errors += 100
        assert fleet.turn().phase in ("Paused", "Degraded")
    assert "errors 100 %" in fleet.arms.alarm.reason
    assert caplog.text.count("cannot be shared") == 1


def test_latency_is_watched_while_the_registry_is_down(fleet, monkeypatch):
    fleet.start()
    fleet.turn()
    checks = []
    monkeypatch.setattr(fleet.arms, "check_latency", lambda: checks.append(1))

    def fail(_):
        raise RegistryUnavailableError("the disk hangs")

    monkeypatch.setattr(Operator, "read", fail)

    async def follow():
        following = asyncio.create_task(fleet.follower.follow(0.01))
        while len(checks) < 3:
            await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(asyncio.wait_for(follow(), 20.0))


def test_a_server_that_lags_behind_the_alias_aborts_nothing(fleet):
    old = fleet.alias_follower.current
    fleet.registry.promote(3)  # which this server has not seen yet
    state = fleet.start()
    assert (state.stable, old.number) == (3, 1)
    assert fleet.turn().phase == "Paused"


@pytest.mark.parametrize(
    ("number", "phase", "said"),
    [(2, "Healthy", "version 2 is promoted: champion moved"), (3, "Degraded", "champion moved to")],
)
def test_an_alias_that_a_person_moves_ends_the_rollout(fleet, number, phase, said):
    fleet.start()
    fleet.turn()
    fleet.registry.promote(number)
    asyncio.run(fleet.alias_follower.check())
    state = fleet.turn()
    assert state.phase == phase
    assert said in state.message


def test_a_rollback_reaches_a_candidate_that_a_person_has_promoted(fleet):
    fleet.start()
    fleet.turn()
    fleet.registry.promote(2)
    fleet.arms.raise_alarm("it smokes", {})
    assert fleet.turn().phase == "Degraded"
    assert fleet.registry.aliases()["champion"] == 1


def test_a_candidate_without_answers_is_not_promoted_by_itself(fleet):
    fleet.start({"setWeight": 50})
    state = fleet.turn()
    assert state.phase == "Inconclusive"
    assert "only 0 answers by the candidate" in state.message
    fleet.operator.command(lambda _: events.Resumed())
    assert fleet.turn().phase == "Healthy"
