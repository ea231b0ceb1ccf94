import numpy as np
from PIL import Image

from rlcar.evaluation.off_policy.pictures import draw_report

SHARES = {"speed": [0.0, float("nan"), 0.5], "bend": [0.0, 0.1, 1.0]}


def result(verdict: str, mean: float | None) -> dict:
    estimate = None if mean is None else {"mean": mean, "low": mean - 1.0, "high": mean + 1.0}
    return {
        "verdict": verdict,
        "reason": "far outside",
        "estimate": estimate,
        "outside_support_by_region": SHARES,
    }


def test_a_picture_shows_estimates_and_regions(tmp_path):
    edges = np.linspace(0.0, 1.0, 4).tolist()
    counts = [[0, 5, 100], [1, 0, 3], [7, 7, 7]]
    report = {
        "behaviour": {"return": 2.0},
        "coverage": {"speed_edges": edges, "bend_edges": edges, "transitions": counts},
        "policies": {"good": result("better", 4.0), "other": result("unknown", None)},
    }
    draw_report(tmp_path / "race.png", report)
    draw_report(tmp_path / "other.png", report | {"coverage": None})
    with Image.open(tmp_path / "race.png") as race, Image.open(tmp_path / "other.png") as other:
        assert race.height > other.height
