"""Prints the report of an evaluation as a table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from rlcar.system.tables import make_table

# "steer" is the mean change of the steering from step to step.
_COLUMNS = (
    *("laps\n[%]", "lap\n[steps]", "over\nbound [%]", "crash\n[%]", "timed\nout [%]"),
    *("progress\n[%]", "steer\n|Δ|"),
)
_WIDE_COLUMNS = 100


def print_table(report: Mapping[str, Any], console: Console) -> None:
    """Prints the drivers under one another, the one under test first.

    Intervals stand beside their mean if the console is wide enough, else below it.
    """
    where = f" {report['track_set']}" if report["track_set"] else ""
    table = make_table(
        "driver",
        *_COLUMNS,
        right=_COLUMNS,
        title=f"{report['tracks']}{where} tracks, 95 % intervals over tracks",
    )
    gap = "  " if console.width >= _WIDE_COLUMNS else "\n"
    for name, score in report["drivers"].items():
        low, high = score["lap_rate_interval"]
        low_pct, high_pct = score["over_bound_pct_interval"]
        time = score["lap_time_steps"]
        table.add_row(
            name,
            f"{100 * score['lap_rate']:.1f}{gap}{100 * low:.0f}–{100 * high:.0f}",
            "-" if time is None else f"{time:.1f}",
            f"{score['over_bound_pct']:.1f}{gap}{low_pct:.1f}–{high_pct:.1f}",
            f"{100 * score['crash_rate']:.1f}",
            f"{100 * score['timeout_rate']:.1f}",
            f"{100 * score['progress']:.1f}",
            f"{score['smoothness']:.3f}",
            style="bold" if name == report["driver"] else "",
        )
    table.add_section()
    table.add_row("lower bound", "", f"{report['bound_steps']:.1f}", style="dim")
    table.add_row("racing line", "", f"{report['racing_line_estimate_steps']:.1f}", style="dim")
    console.print(table)
    if report.get("track_names"):
        _print_own_tracks(report, console)


def _print_own_tracks(report: Mapping[str, Any], console: Console) -> None:
    """Prints the lap of the driver under test on each own track, beside the lower bound."""
    columns = ("lap\n[steps]", "lower bound\n[steps]", "over\nbound [%]", "progress\n[%]")
    table = make_table("track", *columns, right=columns, title=report["driver"])
    laps = report["drivers"][report["driver"]]["per_track"]
    for name, lap in zip(report["track_names"], laps, strict=True):
        time = lap["lap_time_steps"]
        table.add_row(
            name,
            "-" if time is None else str(time),
            str(lap["bound_steps"]),
            f"{lap['over_bound_pct']:.1f}",
            f"{100 * lap['progress']:.0f}",
        )
    console.print(table)
