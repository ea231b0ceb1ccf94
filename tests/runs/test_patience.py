"""A training ends when evaluations no longer improve, and a resumed one goes on counting."""

import pytest

from rlcar.config import make_config
from rlcar.runs.completion import completion_of
from rlcar.runs.metrics_file import read_metrics
from rlcar.runs.monitor import RunReader
from rlcar.runs.patience import Patience
from rlcar.runs.run import find_save
from rlcar.storage.checkpoint import Save
from rlcar.training.loop import train
from rlcar.types import Evaluation, Outcomes


def evaluation(cost, successes=None):
    return Evaluation({}, cost, Outcomes(10, successes, 0.0))


@pytest.mark.parametrize("sign", [1.0, -1.0])  # a cost may be minus a reward
def test_only_improvements_of_one_percent_start_the_count_again(sign):
    patience, counts = Patience(), []
    base = 100.0 if sign > 0 else -100.0
    for better_by in (0.0, 0.5, 0.9, 1.5, 1.6, 2.4, 4.0):
        patience.evaluated(evaluation(base - better_by))
        counts.append(patience.unimproved)
    assert counts == [0, 1, 2, 0, 1, 2, 0]


def test_evaluations_that_say_nothing_do_not_count():
    patience = Patience()
    for cost, successes in ((50.0, 3), (1000.0, 0), (None, None), (60.0, None), (60.0, 1)):
        patience.evaluated(evaluation(cost, successes))
    assert patience.unimproved == 2


def test_a_resumed_training_goes_on_counting(tmp_path):
    patience = Patience()
    for cost in (50.0, 50.0, 50.0):
        patience.evaluated(evaluation(cost))
    resumed = Patience.saved_in(Save(tmp_path, 0, patience.meta()))
    resumed.evaluated(evaluation(49.9))
    assert resumed.unimproved == 3


def test_a_training_without_improvements_ends_and_counts_as_finished(tmp_path):
    config = make_config(
        mode="test",
        algorithm="ppo",
        environment="CartPole-v1",
        overrides=[
            "training.env_steps=100000",
            "training.evaluate_every_env_steps=64",
            "training.patience_evaluations=2",
            "ppo.learning_rate=1e-12",
        ],
    )
    folder = tmp_path / "run"
    outcome = train(config, folder)
    assert outcome.summary["env_steps"] < 2_000
    counts = [
        row["evaluation/unimproved"]
        for row in read_metrics(folder / "metrics.jsonl")
        if "evaluation/unimproved" in row
    ]
    assert counts[-3:] == [0, 1, 2]  # the moments of observations still changed the policy before
    assert completion_of(folder).is_complete
    assert RunReader(folder).status().state == "finished"
    save = find_save(tmp_path, str(folder), None)
    assert train(config, folder, save).summary["env_steps"] == outcome.summary["env_steps"]
