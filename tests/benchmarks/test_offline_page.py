"""The page of offline results is what its figures say."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    path = ROOT / "benchmarks" / "offline_page.py"
    spec = importlib.util.spec_from_file_location("offline_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def results():
    return json.loads((ROOT / "benchmarks" / "results" / "offline.json").read_text())


def test_nothing_on_the_page_is_typed_by_hand(page, results):
    assert (ROOT / "docs" / "offline-results.md").read_text() == page.markdown(results)


def test_a_goal_that_is_not_reached_is_marked(page, results):
    text = page.markdown(results | {"ope_rank_correlation": 0.85})
    assert "simulated returns | 0.85 | at least 0.9 | **no** |" in text


def test_what_diverged_has_failed(page, results, tmp_path):
    results["measured"]["quality grand_prix"]["policies"]["cql"]["test"] = None
    assert "| `cql` | failed | |" in page.markdown(results)
    page.draw(results, tmp_path / "offline.png")
    assert (tmp_path / "offline.png").stat().st_size > 1000
