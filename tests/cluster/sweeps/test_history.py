"""What trials reported, kept over interruptions, and how they rank."""

from cluster.sweeps.history import History, ranked
from tests.cluster.sweeps.tiny_sweep import METRIC, STATES, make_sweep, reported, settings


def test_what_was_reported_is_still_there_after_an_interruption(tmp_path):
    reported(History(tmp_path))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"trial": "000", "env_st')  # killed while writing
    again = History(tmp_path)
    assert [row[METRIC] for row in again.curves["000"]] == [900.0, 700.0, 500.0, 600.0]
    again.add("000", settings(1e-3), {"env_steps": 5120, METRIC: 400.0})
    assert len(History(tmp_path).curves["000"]) == 5


def test_a_trial_that_went_back_to_a_checkpoint_gives_up_what_came_after_it(tmp_path):
    history = History(tmp_path)
    reported(history)
    history.add("000", settings(2e-3), {"env_steps": 2048, METRIC: 650.0})
    assert [row["env_steps"] for row in history.curves["000"]] == [1024, 2048]
    assert history.curves["000"] == History(tmp_path).curves["000"]


def test_the_score_is_the_best_evaluation_with_the_settings_it_had(tmp_path):
    history = History(tmp_path)
    reported(history)
    history.add("000", settings(5e-3), {"env_steps": 5120, METRIC: 450.0})
    score = history.score("000", METRIC, "min")
    assert score == (450.0, 5120, settings(5e-3))
    assert history.score("000", METRIC, "max").value == 900.0
    assert history.score("003", METRIC, "min") is None


def test_what_is_not_a_number_never_wins(tmp_path):
    history = History(tmp_path)
    history.add("000", settings(1e-3), {"env_steps": 1024, METRIC: float("nan")})
    assert history.score("000", METRIC, "min") is None
    history.add("000", settings(1e-3), {"env_steps": 2048, METRIC: 800.0})
    assert History(tmp_path).score("000", METRIC, "min").value == 800.0


def test_the_best_comes_first_and_what_never_evaluated_last(tmp_path):
    history = History(tmp_path)
    reported(history)
    results = ranked(make_sweep(), history, STATES)
    assert [(result.name, result.status) for result in results] == [
        ("000", "done"),
        ("001", "stopped"),
        ("002", "diverged"),
        ("003", "failed"),
    ]
    assert [result.failures for result in results] == [2, 0, 0, 4]
    assert results[2].reason == "model/loss is nan"
    assert results[2].score.value == 990.0
    assert results[3].score is None
    assert results[3].settings == settings(3e-3)
    more = make_sweep(goal="max")
    assert [result.name for result in ranked(more, history, STATES)] == ["002", "001", "000", "003"]
