"""Keeps the figures of the offline benchmarks in benchmarks/results/offline.json.

Each part is measured alone and replaces only its own figures; `measured` has the origin of each.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from header import origin

from rlcar.system.durable import replace_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "offline.json"
WORK = ROOT / "runs" / "offline-benchmarks"  # data sets, runs, and what is measured already


def keep(
    part: str, figures: Mapping[str, Any], load_before: float, details: Mapping[str, Any] = {}
) -> None:
    """Writes the figures of a part, with its origin and details, and prints them.

    Its earlier figures are removed. A figure that is a mapping belongs to a data set.
    """
    report: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    measured = report.pop("measured", {})
    for name in measured.get(part, {}).get("figures", []):
        report.pop(name, None)
    measured[part] = {"figures": sorted(figures)} | origin(load_before) | dict(details)
    report |= figures
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report | {"measured": measured}, indent=1, allow_nan=False) + "\n"
    replace_text(RESULTS, text)
    print_figures(figures)


def print_figures(figures: Mapping[str, Any], prefix: str = "") -> None:
    """Prints a line for each figure."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            print_figures(value, f"{prefix}{name}_")
        elif isinstance(value, float) and math.isfinite(value):
            print(f"figure {prefix}{name}={value:.6g}", flush=True)
        else:
            print(f"figure {prefix}{name}={value}", flush=True)
