"""The committed campaign of kills is what the page says of it."""

import json
from pathlib import Path

PATH = Path(__file__).parents[2] / "benchmarks" / "results" / "chaos.json"
REPORT = json.loads(PATH.read_text())


def test_the_killed_training_completed_and_lost_no_checkpoint():
    assert REPORT["completed"]
    assert REPORT["kills"] >= 100
    assert REPORT["ray_over_local"] >= 0.95
    assert REPORT["checkpoints_lost"] == 0
    assert REPORT["kills"] == len(REPORT["each"])
    assert sum(sums["kills"] for sums in REPORT["by_kind"].values()) == REPORT["kills"]
    assert set(REPORT["by_kind"]) == {"simulator", "hang", "learner", "driver"}


def test_it_drove_and_learned_as_much_as_the_undisturbed_one_and_ended_as_well():
    killed, alone = REPORT["killed"], REPORT["undisturbed"]
    assert (
        abs(killed["train_steps"] / killed["env_steps"] - alone["train_steps"] / alone["env_steps"])
        < 0.01
    )
    low, high = alone["best_lap_rate_interval"]
    assert low <= killed["best_lap_rate"] <= high
    assert REPORT["lap_rate_within_interval"]
