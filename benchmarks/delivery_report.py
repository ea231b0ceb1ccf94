"""Joins the measured parts of `delivery.py` to one file, and draws the time to rollback."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from delivery_faults import CASES

from rlcar.system.durable import replacing

LABELS = {
    "hard": "every answer fails",
    "hard_start": "every answer fails from the start",
    "20pct": "20 % fail",
    "5pct": "5 % fail",
    "2pct": "2 % fail",
    "latency": "answers take twice as long",
    "flip": "steering flipped, in the canary",
    "flip_shadow": "steering flipped, in the shadow",
    "reward": "reward 20 % lower",
}
# Goals for the figure in seconds: all for the 95th percentile.
GOALS_S = {"hard": 3.0, "5pct": 15.0, "latency": 10.0}


def describe_goals(figures: dict[str, Any]) -> dict[str, bool | None]:
    """Says of each goal whether it is reached; None where it was not measured."""
    limits = {
        "errors": 0,
        "sessions_switched_back": 0,
        "p99_ratio": 2.0,
        "rollback_hard_p95_s": 3.0,
        "rollback_5pct_p95_s": 15.0,
        "rollback_latency_p95_s": 10.0,
        "rollback_reward_laps_median": 15,
        "false_rollbacks_of_100": 1.0,
        "null_promoted_of_1000": 50,
        "recording_p99_ratio": 1.1,
    }
    return {
        name: None if figures.get(name) is None else figures[name] <= limit
        for name, limit in limits.items()
    }


def draw(path: Path, results: list[dict[str, Any]], title: str) -> None:
    """Draws every repetition's time to rollback, with the median and the goal."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in CASES if any(one["case"] == name for one in results)]
    figure, axis = pyplot.subplots(figsize=(9, 0.55 * len(names) + 1.6))
    rng = np.random.default_rng(0)
    for row, name in enumerate(reversed(names)):
        own = [one for one in results if one["case"] == name]
        found = np.array([max(0.05, one["rollback_s"]) for one in own if one["found"]])
        heights = row + rng.uniform(-0.2, 0.2, len(found))
        axis.plot(found, heights, "o", color="tab:blue", alpha=0.5, markersize=4)
        if len(found):
            axis.plot([np.median(found)] * 2, [row - 0.35, row + 0.35], color="black", linewidth=2)
        if name in GOALS_S:
            axis.plot([GOALS_S[name]] * 2, [row - 0.4, row + 0.4], color="tab:red", linestyle="--")
    axis.set_yticks(range(len(names)), [LABELS[name] for name in reversed(names)])
    axis.set_xscale("log")
    ticks = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel(
        "seconds from the fault to the candidate's last answer\n"
        "(black: median, red: goal for the 95th percentile)"
    )
    axis.set_title(title)
    axis.grid(alpha=0.3, axis="x", which="both")
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)


def load_average() -> float:
    """Returns the mean number of running processes in the last minute."""
    return round(os.getloadavg()[0], 2)
