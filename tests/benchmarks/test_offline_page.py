"""The page of offline results is what its figures say."""

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_nothing_on_the_page_is_typed_by_hand(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    path = ROOT / "benchmarks" / "offline_page.py"
    spec = importlib.util.spec_from_file_location("offline_page", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = json.loads((ROOT / "benchmarks" / "results" / "offline.json").read_text())
    assert (ROOT / "docs" / "offline-results.md").read_text() == module.markdown(results)
