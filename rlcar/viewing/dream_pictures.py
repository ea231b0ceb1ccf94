"""Pictures of dreams: errors by horizon, and a film of predicted rays beside the real ones."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from rlcar.config.race import RANGE_PX, RAY_ANGLES_DEG
from rlcar.evaluation.pictures import save_figure
from rlcar.sim.sensors import RAYS
from rlcar.system.durable import replacing

_REAL, _DREAMT, _STALE = "#2563a8", "#e8a33d", "#aab2bb"
Scene = tuple[np.ndarray, np.ndarray, str]  # real [H, O], dreamt [H, O], a title


def draw_errors(path: Path, report: Mapping[str, Any]) -> None:
    """Draws the errors of `dream.json` over the horizon."""
    figure = Figure(figsize=(9.0, 5.6), dpi=150, layout="constrained", facecolor="white")
    figure.suptitle(
        f"Dreams on {report['tracks']} {report['track_set']} tracks "
        f"({report['dreams']:,} of them, after {report['prefix_steps']} steps or more)",
        x=0.02, ha="left", weight="bold",
    )  # fmt: skip
    panels = figure.subplots(2, 2, sharex=True).flat
    steps = np.arange(1, report["horizon_steps"] + 1)
    titles = {
        "rays": "rays [% of range]",
        "speed": "speed [% of range]",
        "reward": "reward of a step",
        "continue": "chance of going on",
    }
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        suffix = "_pct" if name in ("rays", "speed") else ""
        axes.plot(steps, report[f"{name}_error{suffix}"], color=_DREAMT, label="the model")
        if suffix:
            stale = report[f"{name}_stale_error_pct"]
            axes.plot(steps, stale, color=_STALE, label="nothing changes")
            axes.axhline(5.0, color=_STALE, linewidth=0.8, linestyle="--")
            axes.legend(frameon=False)
        axes.set_title(f"mean error: {title}", loc="left", fontsize=9)
        axes.set_ylim(bottom=0.0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("steps into the dream")
    save_figure(figure, path)


def film(path: Path, scenes: Sequence[Scene]) -> None:
    """Writes a GIF with the real and the predicted rays at each step of each scene."""
    frames = []
    for real, dreamt, title in scenes:
        for step in range(len(real)):
            frames.append(_frame(real[step], dreamt[step], f"{title}: {step + 1} steps dreamt"))
    if not frames:
        return
    options = {"save_all": True, "append_images": frames[1:], "duration": 150, "loop": 0}
    with replacing(path) as temporary:
        frames[0].save(temporary, "gif", **options)


def _frame(real: np.ndarray, dreamt: np.ndarray, title: str) -> Image.Image:
    figure = Figure(figsize=(6.4, 3.6), dpi=80, layout="constrained", facecolor="white")
    fan, bars = figure.subplots(1, 2, width_ratios=[2.4, 1.0])
    figure.suptitle(title, x=0.02, ha="left", fontsize=9)
    angles = np.deg2rad(np.asarray(RAY_ANGLES_DEG) + 90.0)
    for values, colour, width, name in (
        (real, _REAL, 5.0, "really"),
        (dreamt, _DREAMT, 2.0, "dreamt"),
    ):
        length_px = np.clip(values[:RAYS], 0.0, 1.0) * RANGE_PX
        x, y = length_px * np.cos(angles), length_px * np.sin(angles)
        for index in range(RAYS):
            label = name if index == 0 else None
            fan.plot([0, x[index]], [0, y[index]], color=colour, linewidth=width, label=label)
    fan.set(xlim=(-RANGE_PX, RANGE_PX), ylim=(-8, RANGE_PX), aspect="equal", xticks=[], yticks=[])
    fan.legend(frameon=False, loc="lower right", fontsize=8)
    fan.set_title("what the car sees ahead", fontsize=8, loc="left")
    bars.barh([1, 0], [real[RAYS], dreamt[RAYS]], color=[_REAL, _DREAMT])
    bars.set(xlim=(0, 1), yticks=[1, 0], yticklabels=["really", "dreamt"])
    bars.set_title("speed", fontsize=8, loc="left")
    for axes in (fan, bars):
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE)
