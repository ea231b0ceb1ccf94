"""The sums of a campaign."""

import io
import json

from rich.console import Console

from cluster.chaos.report import Kill, make_report, make_table, write_report

KILLS = [
    Kill("learner", 1, 0.0, 100, recovery_s=4.0, env_steps_lost=10),
    Kill("learner", 2, 9.0, 200, recovery_s=8.0, env_steps_lost=20, checkpoints_lost=1),
    Kill("simulator", 3, 20.0, 300, recovery_s=None, is_save_sound=False),
]


def report(kills=KILLS):
    return make_report(
        kills,
        completed=True,
        failure=None,
        seconds=90.0,
        env_steps=400,
        undisturbed_rate=12.34,
        driver_restarts=0,
    )


def test_the_sums_are_over_all_kills_and_over_each_kind():
    sums = report()
    assert (sums["kills"], sums["env_steps_lost"], sums["checkpoints_lost"]) == (3, 30, 2)
    assert sums["by_kind"]["learner"] == {
        "kills": 2,
        "recovered_in_time": 2,
        "recovery_median_s": 6.0,
        "recovery_worst_s": 8.0,
        "env_steps_lost": 30,
        "checkpoints_lost": 1,
    }
    assert sums["by_kind"]["simulator"]["recovery_median_s"] is None
    assert sums["by_kind"]["simulator"]["checkpoints_lost"] == 1  # a torn one counts


def test_a_report_is_json_and_its_table_says_the_verdict(tmp_path):
    write_report(tmp_path / "deep" / "chaos.json", report())
    assert json.loads((tmp_path / "deep" / "chaos.json").read_text()) == report()
    screen = io.StringIO()
    Console(file=screen, width=80).print(make_table(report()))
    text = screen.getvalue()
    assert "3 kills in 1.5 minutes: completed, 2 checkpoints lost" in text
    assert "learner" in text


def test_a_campaign_without_kills_has_a_report_too():
    assert report([])["by_kind"] == {}
