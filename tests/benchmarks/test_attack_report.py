"""The verdicts of the attack suite and of half an hour of attacks."""

import pytest

from benchmarks.attack_report import BOUNDS, broken
from benchmarks.attack_soak import Sample, slope_per_min
from benchmarks.attack_soak import broken as broken_by_soak

CALM = {
    "honest_p99_ms": 3.0,
    "honest_refused": 0,
    "health_max_ms": 4.0,
    "memory_mb": 1.0,
    "recovery_s": 0.1,
    "more_files": 0,
}
STEADY = {
    "memory_mb_per_min": 0.2,
    "files_first": 40,
    "files_last": 41,
    "honest_refused": 0,
    "died": False,
}


def test_a_server_that_nobody_notices_being_attacked_breaks_no_bound():
    assert [broken(lane, CALM) for lane in BOUNDS] == [[], [], []]


@pytest.mark.parametrize("name", CALM)
def test_each_figure_has_a_bound_and_a_missing_one_breaks_it(name):
    assert broken("realtime", CALM | {name: 1e6}) == [name]
    assert broken("realtime", CALM | {name: None}) == [name]


def test_without_a_front_end_a_server_may_slow_down_but_must_keep_its_memory_and_recover():
    slow = {"honest_p99_ms": 5000.0, "honest_refused": 100, "health_max_ms": 5000.0}
    assert broken("direct", CALM | slow) == []
    assert broken("direct", CALM | {"memory_mb": 301.0, "recovery_s": None}) == [
        "memory_mb",
        "recovery_s",
    ]


def test_the_slope_is_that_of_the_line_through_the_samples():
    samples = [Sample(minute, 200.0 + 2.0 * minute, 30, 0) for minute in (5.0, 6.0, 9.0, 30.0)]
    assert slope_per_min(samples, "memory_mb") == pytest.approx(2.0)
    assert slope_per_min(samples, "files") == pytest.approx(0.0)
    assert slope_per_min(samples[:1], "memory_mb") is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"memory_mb_per_min": 1.5}, "memory_mb_per_min"),
        ({"memory_mb_per_min": None}, "memory_mb_per_min"),
        ({"files_last": 60}, "files"),
        ({"files_first": None}, "files"),
        ({"honest_refused": 1}, "honest_refused"),
        ({"died": True}, "died"),
    ],
)
def test_a_soak_fails_for_a_leak_a_refusal_or_a_server_that_died(change, name):
    assert broken_by_soak(STEADY) == []
    assert broken_by_soak(STEADY | change) == [name]
