"""The committed figures of rollouts follow from the repetitions, and faults not found count."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from rlcar.system.provenance import commit

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "benchmarks/results/delivery.json").read_text())


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("delivery_faults")


def test_every_figure_follows_from_the_repetitions_beside_it(faults):
    figures = faults.summary(RESULTS["faults"])
    assert len(figures) > 20
    assert {name: RESULTS[name] for name in figures} == figures


def test_no_car_was_disturbed():
    assert RESULTS["errors"] == 0
    assert RESULTS["sessions_switched_back"] == 0
    assert RESULTS["rollouts_promoted"] > 0
    assert RESULTS["rollouts_aborted"] > 0


def test_a_fault_that_was_not_found_is_the_slowest(faults):
    one = {"case": "5pct", "found": True, "rollback_s": 4.0, "ratio": None}
    one |= {"cars": 2, "answers": 80, "brakes": 4, "laps": 0}
    results = [one | {"rollback_s": float(time_s)} for time_s in range(1, 10)]
    figures = faults.summary([*results, one | {"found": False, "rollback_s": 0.0}])
    assert figures["rollback_5pct_median_s"] == 5.0
    assert figures["rollback_5pct_p95_s"] is None
    assert figures["rollback_5pct_not_found"] == 1


def test_a_fault_begins_and_ends_with_its_file(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    server = importlib.import_module("faulty_server")
    file = server.switch(tmp_path / "models")

    def steer(state, observation, is_first):
        return np.array([[0.5, 1.0]], np.float32), state

    seen = (None, np.zeros((1, 6), np.float32), np.zeros(1, bool))
    flipped = server.faulty(steer, server.describe("flip", 1.0), file.exists)
    failing = server.faulty(steer, server.describe("errors", 1.0), file.exists)
    assert flipped(*seen)[0].tolist() == failing(*seen)[0].tolist() == [[0.5, 1.0]]
    file.touch()
    assert flipped(*seen)[0].tolist() == [[-0.5, 1.0]]
    with pytest.raises(ValueError, match="injected"):
        failing(*seen)
    assert server.faulty(steer, "an ordinary version", file.exists) is steer


def test_each_repetition_names_its_commit_and_the_report_names_all(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    delivery = importlib.import_module("delivery")
    (tmp_path / "clean.json").write_text(
        '[{"rolled_back": null}, {"commit": "a"}, {"commit": "a"}]'
    )
    kept = delivery.Kept(tmp_path, "clean")
    kept.add({"rolled_back": None})
    results = json.loads((tmp_path / "clean.json").read_text())
    assert results[-1]["commit"] == commit()
    assert delivery.commits([results[:2], results[2:]]) == [None, "a", commit()]
