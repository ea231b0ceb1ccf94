import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from rlcar.evaluation.off_policy.pictures import draw_report, report_figure

SHARES = {"speed": [0.0, float("nan"), 0.5], "bend": [0.0, 0.1, 1.0]}


def result(verdict: str, mean: float | None) -> dict:
    estimate = None if mean is None else {"mean": mean, "low": mean - 1.0, "high": mean + 1.0}
    return {
        "verdict": verdict,
        "reason": "far outside",
        "estimate": estimate,
        "outside_support_by_region": SHARES,
    }


def report_of(baseline: dict | None) -> dict:
    edges = np.linspace(0.0, 1.0, 4).tolist()
    counts = [[0, 5, 100], [1, 0, 3], [7, 7, 7]]
    return {
        "behaviour": {"return": 2.0},
        "baseline": baseline,
        "coverage": {"speed_edges": edges, "bend_edges": edges, "transitions": counts},
        "policies": {"good": result("better", 4.0), "other": result("unknown", None)},
    }


def vertical_lines(axes: Axes) -> dict[str, float]:
    lines = [line for line in axes.lines if line.get_linestyle() != "-"]
    return {line.get_linestyle(): line.get_xdata()[0] for line in lines}


def test_a_picture_shows_estimates_and_regions(tmp_path):
    report = report_of(None)
    draw_report(tmp_path / "race.png", report)
    draw_report(tmp_path / "other.png", report | {"coverage": None})
    with Image.open(tmp_path / "race.png") as race, Image.open(tmp_path / "other.png") as other:
        assert race.height > other.height


def test_a_picture_compares_with_what_the_verdicts_compare_with():
    alone = report_figure(report_of(None)).axes[0]
    assert vertical_lines(alone) == {"--": 2.0}
    assert "the recorded behaviour" in alone.get_title(loc="left")

    compared = report_figure(report_of({"name": "first", **result("worse", 3.0)})).axes[0]
    assert vertical_lines(compared) == {"--": 3.0, ":": 2.0}
    assert "the baseline first" in compared.get_title(loc="left")
    names = [label.get_text() for label in compared.get_yticklabels()]
    assert names == ["first (baseline)", "good", "other"]

    unknown = report_figure(report_of({"name": "first", **result("unknown", None)})).axes[0]
    assert vertical_lines(unknown) == {":": 2.0}
