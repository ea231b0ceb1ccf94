import numpy as np

from rlcar.offline.selection import Measure, choose_by_estimates, choose_by_measures


def result(verdict: str, mean: float) -> dict:
    interval = {"mean": mean, "low": mean - 1, "high": mean + 1}
    return {"verdict": verdict, "estimate": interval, "difference": interval}


UNKNOWN = {"verdict": "unknown", "estimate": None, "difference": None}


def report(**policies: dict) -> dict:
    """The policies beside the baseline, with which the verdicts compare."""
    return {"policies": policies}


NAMES = ["bc", "cql", "iql"]


def test_the_lowest_mean_cost_wins():
    measures = {"bc": Measure(np.array([300.0, 1000.0])), "cql": Measure(np.array([400.0, 500.0]))}
    choice = choose_by_measures(measures)
    assert choice.name == "cql"
    assert choice.reason == "its mean cost 450 is below 650 of bc"


def test_the_baseline_wins_a_tie():
    measures = {"bc": Measure(np.ones(3)), "cql": Measure(np.ones(3))}
    assert choose_by_measures(measures).name == "bc"


def test_the_interval_contains_the_mean():
    low, high = Measure(np.arange(64.0)).interval()
    assert low < 31.5 < high


def test_a_single_cost_has_no_interval():
    assert Measure(np.array([7.0])).interval() is None


def test_a_higher_estimate_wins_only_with_the_verdict_better():
    both = report(cql=result("better", 7.0), iql=result("better", 5.0))
    assert choose_by_estimates(NAMES, both).name == "cql"
    one = report(cql=result("unknown", 9.0), iql=result("better", 5.0))
    choice = choose_by_estimates(NAMES, one)
    assert choice == ("iql", "it is better than bc: the return differs by 5 (4–6)")


def test_what_is_not_known_to_be_better_than_the_baseline_does_not_replace_it():
    """Whatever the recorded behaviour is worth, and however high the estimates are."""
    found = report(cql=result("unknown", 9.0), iql=result("worse", 6.0))
    choice = choose_by_estimates(NAMES, found)
    assert choice == ("bc", "no other candidate is known to be better than bc")
    assert choose_by_estimates(NAMES, report(cql=UNKNOWN, iql=UNKNOWN)).name == "bc"


def test_without_any_knowledge_the_baseline_is_kept():
    assert choose_by_estimates(NAMES, None).name == "bc"


def test_a_single_candidate_is_kept_because_there_is_no_other():
    """Images have no baseline and no estimates."""
    choice = choose_by_estimates(["dreamer"], None)
    assert choice == ("dreamer", "it is the only candidate")
