"""False alarms and detection times of the sequential tests, on simulated streams."""

import numpy as np
import pytest

from serve.delivery.sequential import (
    Cusum,
    Outcome,
    paired_differences,
    paired_evidence,
)

PER_S = 20  # answers of the candidate
WINDOW = 10 * 60 * PER_S


def _answers_until_alarm(faults):
    test = Cusum(0.001, 0.01, 1e-4)
    answers = 0
    for fault in np.flatnonzero(faults):  # between two faults the score only falls
        test.add(0, int(fault) - answers)
        answers = int(fault) + 1
        if test.add(1, 1):
            return answers
    return None


@pytest.mark.parametrize(
    ("share", "median_s", "p95_s"), [(1.0, 0.25, 0.25), (0.2, 2.0, 4.0), (0.05, 6.0, 15.0)]
)
def test_faults_are_found_in_time(share, median_s, p95_s):
    rng = np.random.default_rng(0)
    found = [_answers_until_alarm(rng.random(4000) < share) for _ in range(400)]
    times_s = np.array([4000 if one is None else one for one in found]) / PER_S
    assert np.median(times_s) <= median_s
    assert np.percentile(times_s, 95) <= p95_s


def test_the_usual_share_of_faults_raises_few_alarms_in_ten_minutes():
    rng = np.random.default_rng(1)
    found = [_answers_until_alarm(rng.random(WINDOW) < 0.001) for _ in range(200)]
    assert sum(one is not None for one in found) <= 2


def test_batches_of_answers_find_what_single_answers_find():
    test = Cusum(0.001, 0.01, 1e-4)
    assert not test.add(faults=0, answers=1000)
    assert test.score == 0.0
    assert not test.add(faults=3, answers=10)
    assert test.add(faults=2, answers=10)


def _laps(rng, count, loss=0.0, spread=0.1):
    """Yields outcomes as they come: a tenth of the cars is on the canary."""
    for number in range(count):
        is_canary = rng.random() < 0.1
        reward = 800.0 * (1.0 - loss * is_canary) + 800.0 * spread * rng.normal()
        yield Outcome(float(number), is_canary, reward)


def _looks(outcomes):
    """Looks at the evidence after each lap of the canary, as a server does."""
    differences = paired_differences(outcomes)
    return [paired_evidence(differences[:pairs]) for pairs in range(1, len(differences) + 1)]


def test_equal_versions_seldom_differ_although_one_looks_after_every_lap():
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(300):
        alarms += any(one.is_significant(0.05) for one in _looks(_laps(rng, 600)))
    assert alarms <= 0.05 * 300


def test_a_fifth_less_reward_is_found_within_15_laps():
    rng = np.random.default_rng(3)
    laps = []
    for _ in range(200):
        looks = _looks(_laps(rng, 400, loss=0.2))
        found = [one.pairs for one in looks if one.is_significant(0.005) and one.difference < 0]
        laps.append(found[0] if found else 1000)
    assert np.median(laps) <= 15


def test_pairs_use_every_lap_at_most_once():
    laps = [(0, False, 1.0), (1, False, 3.0), (2, True, 5.0), (3, True, 7.0), (4, False, 1.0)]
    outcomes = [Outcome(*lap) for lap in laps]
    assert paired_differences(outcomes) == [3.0]  # 5 - (1 + 3) / 2; the 7 waits for company
    assert paired_differences([*outcomes, Outcome(5, True, 2.0)]) == [3.0, 6.0]


def test_evidence_of_hand_computed_pairs():
    # n = 2, mean 1, spread 2, one sigma: (2 + 2) / (2 + 2 / 3) / sqrt(3)
    evidence = paired_evidence([0.0, 2.0])
    assert evidence.log_ratio == pytest.approx(np.log(4.0 / (2.0 + 2.0 / 3.0) / 3**0.5))
    assert evidence.difference == 1.0
    assert paired_evidence([]).log_ratio == 0.0
    assert paired_evidence([0.0] * 100).log_ratio < 0.0
    assert np.isfinite(paired_evidence([-1.0] * 100).log_ratio)
