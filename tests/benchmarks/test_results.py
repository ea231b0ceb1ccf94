"""The page of results is what its figures say."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rlcar.evaluation.statistics import bootstrap_interquartile_mean

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "docs" / "results.json").read_text())


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_on_the_page_is_typed_by_hand(script):
    assert (ROOT / "docs" / "results.md").read_text() == script.markdown(RESULTS)


def test_every_figure_follows_from_the_runs_beside_it(script):
    cells = [cell for table in RESULTS["grand_prix"].values() for cell in table.values()]
    assert len(cells) >= 5
    for cell in cells:
        runs = cell["runs"]
        assert len({run["seed"] for run in runs}) == len(runs) == cell["seeds"] >= 3
        assert all(len(run["over_bound_pct"]) == 64 for run in runs)
        scores = np.array([run["over_bound_pct"] for run in runs])
        said = [cell["score_over_bound_pct"][name] for name in ("iqm", "iqm_low", "iqm_high")]
        assert said == pytest.approx(list(bootstrap_interquartile_mean(scores)), abs=0.01)
        assert cell["lap_rate"] == pytest.approx(
            np.mean([run["lap_rate"] for run in runs]), abs=1e-4
        )
        assert all(run["commit"] and run["versions"]["jax"] for run in runs)


def test_figures_of_this_machine_join_the_committed_ones(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results.json")
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    for world in ("classic", "grand-prix"):
        script._update(world)  # none yet
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS
    older = RESULTS["classic"]["dreamer"]["runs"]
    again = older[1] | {"lap_rate": 0.5}
    new = older[0] | {"name": "another", "preset": "another"}
    for number, run in enumerate((again, new)):
        folder = tmp_path / "runs" / f"classic-{number}"
        folder.mkdir(parents=True)
        (folder / "at-1.json").write_text(json.dumps(run))
    script._update("classic")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["classic"]["dreamer"]["runs"] == [older[0], again, *older[2:]]
    assert results["classic"]["another"]["runs"] == [new]
    assert results["grand_prix"] == RESULTS["grand_prix"]
