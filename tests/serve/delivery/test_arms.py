"""What one process decides from the answers that it counts, without a server or real time."""

import numpy as np
import pytest

from rlcar.registry import Registry
from serve.delivery.counts import ArmCounts, RolloutCounts, ShadowCounts
from serve.delivery.operator import Operator
from serve.delivery.specification import default_specification
from serve.observing.metrics import ServerMetrics
from serve.policy.alias_follower import AliasFollower, warm_up
from serve.policy.policy import load_policy
from serve.policy.rollout_arms import ActiveRollout, RolloutArms
from serve.policy.rollout_follower import RolloutFollower
from serve.policy.sessions import Session
from tests.serve.served import publish

PER_S = 20  # answers of the candidate, and as many of the stable version


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "models"
    publish(folder, seed=1)
    publish(folder, seed=2, alias=None)
    return folder


@pytest.fixture(scope="module")
def versions(folder):
    return [warm_up(load_policy(Registry(folder), number)) for number in (1, 2)]


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


def test_sessions_of_many_cars_are_not_timed(versions, arms):
    for _ in range(100):
        arms.add(versions[0], None, False, 0.001)
        arms.add(versions[1], None, False, None)
    arms.check_latency()
    assert arms.alarm is None
    assert (arms.counts.candidate.answers, arms.counts.candidate.timed) == (100, 0)


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
    arms.shadow(session, observation, ~first, -np.sign(own))
    counts = arms.counts.shadow
    assert counts.pairs == 6
    assert counts.sign_flips == int((np.abs(own[:, 0]) > 0.05).sum())
    assert counts.jerk_stable > counts.jerk_candidate


@pytest.fixture
def follower(folder, arms):
    registry = Registry(folder)
    metrics = ServerMetrics()
    alias_follower = AliasFollower(registry, "champion", metrics)
    return RolloutFollower(Operator(registry, "champion", "me"), alias_follower, arms, metrics)


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


def test_values_of_metrics():
    counts = RolloutCounts(
        ArmCounts(10, timed=10, latency_s=0.01),
        ArmCounts(20, errors=1, fallbacks=2, timed=20, latency_s=0.04),
        ShadowCounts(10, differing=3, jerk_stable=2.0, jerk_candidate=3.0),
    )
    values = {"errorShare": 0.05, "fallbackShare": 0.1, "latencyRatio": 2.0, "jerkRatio": 1.5,
              "steeringDifferenceShare": 0.3, "rewardDifference": None}  # fmt: skip
    assert {name: counts.value(name) for name in values} == pytest.approx(values)
    assert RolloutCounts().value("errorShare") is None
