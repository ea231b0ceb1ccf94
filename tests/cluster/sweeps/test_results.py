"""The result folder: tables, pages that need no network, settings to train with."""

import csv
import io
import json
import re
import warnings

import pytest
from rich.console import Console

from cluster.sweeps.history import History, TrialState, ranked
from cluster.sweeps.results import print_results, write_results
from rlcar.config import make_config
from rlcar.errors import UserError
from tests.cluster.sweeps.tiny_sweep import (
    GROUPS,
    METRIC,
    RATE,
    STATES,
    make_sweep,
    reported,
    settings,
)


@pytest.fixture
def folder(tmp_path):
    sweep, history = make_sweep(), History(tmp_path)
    reported(history)
    write_results(sweep, tmp_path, ranked(sweep, history, STATES))
    return tmp_path


def figures_of(page):
    """The data that a page draws, as plotly wrote it."""
    start = page.index("[", page.index("Plotly.newPlot("))
    return json.JSONDecoder().raw_decode(page[start:])[0]


def test_best_yaml_trains_with_exactly_the_best_trials_settings(folder):
    config = make_config(file=folder / "best.yaml")
    assert config == make_sweep().settings(settings(1e-3))[0]
    assert (
        "evaluation/charged_lap_steps = 500 after 3072 env steps"
        in (folder / "best.yaml").read_text()
    )


def test_best_yaml_says_how_many_simulators_it_takes(tmp_path):
    sweep, history = make_sweep(cluster={"simulators": 3}), History(tmp_path)
    reported(history)
    write_results(sweep, tmp_path, ranked(sweep, history, STATES))
    text = (tmp_path / "best.yaml").read_text()
    assert "rlcar train --config best.yaml --simulators 3" in text


def test_the_tables_hold_every_trial(folder):
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == ["000", "001", "002", "003"]
    assert rows[0]["score"] == "500.0"
    assert rows[0][RATE] == "0.001"
    assert rows[1][GROUPS] == "8"
    assert rows[3]["score"] == ""
    tree = json.loads((folder / "results.json").read_text())
    assert [trial["score"] for trial in tree["trials"]] == [500.0, 950.0, 990.0, None]
    assert len(tree["trials"][0]["curve"]) == 4


def test_the_pages_ask_nothing_of_the_network(folder):
    for name in ("index.html", "learning_curves.html", "parallel_coordinates.html"):
        page = (folder / name).read_text()
        assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", page), name
        assert "<title>" in page
    for name in ("learning_curves.html", "parallel_coordinates.html"):
        assert (folder / name).stat().st_size > 1_000_000, "plotly itself is within"


def test_the_index_links_only_to_what_is_there(folder):
    links = re.findall(r'href="([^"]+)"', (folder / "index.html").read_text())
    assert len(links) == 5
    assert all((folder / link).exists() for link in links)


def test_parallel_coordinates_draw_the_settings_and_the_score(folder):
    (figure,) = figures_of((folder / "parallel_coordinates.html").read_text())
    rate, groups, score = figure["dimensions"]
    assert rate["label"] == RATE
    assert [10**value for value in rate["values"]] == pytest.approx([1e-3, 2e-4, 9e-3])
    assert [10**value for value in rate["range"]] == pytest.approx([1e-4, 1e-2])
    assert groups["ticktext"] == ["4", "8"]
    assert groups["values"] == [0, 1, 0]
    assert score["values"] == [500.0, 950.0, 990.0]


def test_learning_curves_draw_every_evaluation_but_not_the_divergence(folder):
    drawn = figures_of((folder / "learning_curves.html").read_text())
    curves = {curve["name"]: (list(curve["x"]), list(curve["y"])) for curve in drawn}
    assert curves == {
        "000 (done)": ([1024, 2048, 3072, 4096], [900.0, 700.0, 500.0, 600.0]),
        "001 (stopped)": ([1024], [950.0]),
        "002 (diverged)": ([1024], [990.0]),
    }


def test_a_sweep_without_any_evaluation_has_results_too(tmp_path):
    sweep = make_sweep()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_results(sweep, tmp_path, ranked(sweep, History(tmp_path), {"000": STATES["003"]}))
    assert not (tmp_path / "best.yaml").exists()
    assert "its process died" in (tmp_path / "index.html").read_text()


def test_names_from_a_file_cannot_become_markup(tmp_path):
    sweep, history = make_sweep(), History(tmp_path)
    history.add("000", settings(1e-3), {"env_steps": 1024, METRIC: 9.0})
    states = {"000": TrialState("ERROR", 1, "<script>alert(1)</script>")}
    write_results(sweep, tmp_path, ranked(sweep, history, states))
    assert "<script>" not in (tmp_path / "index.html").read_text()


def test_the_terminal_gets_the_table_and_the_figures(tmp_path):
    sweep, history = make_sweep(), History(tmp_path)
    reported(history)
    console = Console(width=120, file=io.StringIO())
    print_results(sweep, ranked(sweep, history, STATES), console)
    output = console.file.getvalue()
    assert "figure best_score=500" in output
    assert "figure trials_failed=1" in output
    assert "figure failures=6" in output


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    sweep = make_sweep()
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*: Is a directory"):
        write_results(sweep, tmp_path, ranked(sweep, History(tmp_path), STATES))
