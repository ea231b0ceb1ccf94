"""Makes docs/offline-results.md and its picture from benchmarks/results/offline.json.

    python benchmarks/offline_page.py

The benchmarks whose names begin with `offline_` measure the figures.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from offline_parts import RESULTS, ROOT

from rlcar.system.durable import replace_text

PAGE = ROOT / "docs" / "offline-results.md"
PICTURE = ROOT / "docs" / "images" / "offline.png"
TITLES = {
    "classic_narrow": "Classic on narrow roads",
    "classic_narrow_smaller_errors": "Classic on narrow roads, with smaller errors",
    "grand_prix": "Grand prix",
}


COMMANDS = {
    "record": "`rlcar data record`",
    "validate": "`rlcar data validate`",
    "coverage": "`rlcar data coverage`",
    "info": "`rlcar data info`",
    "pass": "a pass over all episodes in Python, in random order",
    "train": "`rlcar train --local --data`, all passes, with few train steps",
}


class Row(NamedTuple):
    """A figure, what it means, and the goal that it has to reach."""

    figure: str
    meaning: str
    goal: float | None = None


ROWS = (
    Row(
        "choice_right_of_{cases}",
        "seeded data sets, of {cases}, in which `rlcar offline` kept that one of {candidates} "
        "({updates:,} updates of {units} units) that is the best on the test tracks, or not "
        "distinguishably worse",
        19,
    ),
    Row("choice_by_estimates_of", "data sets in which the choice by estimates was measured too"),
    Row("choice_by_estimates_right", "of these, data sets in which that choice is right"),
    Row(
        "choice_by_estimates_kept_baseline",
        "of these, data sets in which it kept the baseline `bc`, because the estimates from a "
        "fifth of the episodes showed no other candidate to be better",
    ),
    Row("ope_rank_correlation", "rank correlation of estimated and simulated returns", 0.9),
    Row("ope_unknown_of_10", "policies unlike the data, of 10, with the verdict `unknown`", 10),
    Row("ope_coverage", "share of the intervals that contain the simulated return", 0.9),
    Row(
        "cql_updates_over_d3rlpy",
        "train steps of CQL for each CPU-second, relative to d3rlpy; "
        "{large[units]} units, {large[samples]} sampled actions",
        5,
    ),
    Row(
        "small_cql_updates_over_d3rlpy",
        "the same; {small[small_units]} units, {small[small_samples]} sampled actions",
        5,
    ),
)


def markdown(results: dict[str, Any]) -> str:
    """Returns the page."""
    lines = [
        "# Results of offline learning",
        "",
        "Written by `python benchmarks/offline_page.py` from",
        "[`offline.json`](../benchmarks/results/offline.json); nothing here is typed by hand. Laps",
        "are those of the 64 test tracks, which nothing was recorded on and which no choice has",
        "seen. In the mean lap, a track that is not lapped counts as 1,000 steps. Drivers are",
        "measured as they were recorded, with their errors, and in brackets without them. There is",
        "one training for each row, so differences of a few tracks mean nothing.",
        "",
        "![Share of test tracks lapped, by drivers and by learned policies](images/offline.png)",
        "",
    ]
    for name, title in measured_titles(results).items():
        lines += _data_set(title, results["measured"][f"quality {name}"])
    lines += ["## Choice, estimates and speed", ""]
    lines += ["| Figure | Value | Goal | Reached |", "| --- | --- | --- | --- |"]
    lines += [*_rows(results), "", *_memory(results)]
    lines += ["## Origin", "", "| Part | Command | Commit | Date | Machine |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for part, origin in sorted(results["measured"].items()):
        commit = (origin["provenance"]["commit"] or "unknown")[:7]
        cells = (part, f"`{origin['command']}`", commit, origin["date"], origin["machine"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def measured_titles(results: dict[str, Any]) -> dict[str, str]:
    """Returns the titles of the data sets that were measured."""
    return {name: each for name, each in TITLES.items() if f"quality {name}" in results["measured"]}


def _rows(results: dict[str, Any]) -> list[str]:
    """Returns the rows of the figures that were measured."""
    measured = results["measured"]
    choice = measured["choice"]
    values = {
        "cases": len(choice["cases"]),
        "candidates": ", ".join(f"`{name}`" for name in choice["candidates"]),
        "updates": choice["updates"],
        "units": choice["units"],
        "large": measured["speed"]["settings"],
        "small": measured["peer_quality"]["settings"],
    }
    lines = []
    for row in ROWS:
        figure = row.figure.format(**values)
        if figure not in results:
            continue
        value, goal, reached = results[figure], "", ""
        if row.goal is not None:
            goal, reached = f"at least {row.goal}", "yes" if value >= row.goal else "**no**"
        lines.append(f"| {row.meaning.format(**values)} | {value:.4g} | {goal} | {reached} |")
    return lines


def _memory(results: dict[str, Any]) -> list[str]:
    """Returns the table of what the commands use; nothing if that was not measured."""
    if "memory" not in results:
        return []
    memory = results["memory"]
    lines = [
        "## Memory",
        "",
        f"{memory['transitions']:,} transitions, which are {memory['data_mb']:,.0f} MB in memory.",
        f"Over the second half of the training of {memory['train_passes']} passes, its memory",
        f"changes by {memory['train_rss_slope_mb_per_min']:.1f} MB a minute.",
        "",
        "| Command | Peak memory [MB] | CPU-seconds |",
        "| --- | --- | --- |",
    ]
    for name, command in COMMANDS.items():
        if f"{name}_cpu_s" in memory:
            peak, cpu_s = memory[f"{name}_rss_mb"], memory[f"{name}_cpu_s"]
            lines.append(f"| {command} | {peak:.0f} | {cpu_s:.1f} |")
    return [*lines, ""]


def _data_set(title: str, details: dict[str, Any]) -> list[str]:
    lines = [
        f"## {title}",
        "",
        f"{details['transitions']:,} transitions. The choice: {details['reason']}.",
        "",
        "| Driver or policy | Laps | Mean lap | CPU-seconds of training |",
        "| --- | --- | --- | --- |",
    ]
    for name, both in details["drivers"].items():
        recorded, without = both["recorded"], both["without_error"]
        lines.append(
            f"| {name} | {recorded['lap_rate']:.0%} ({without['lap_rate']:.0%}) | "
            f"{recorded['charged_lap_steps']:.0f} ({without['charged_lap_steps']:.0f}) | |"
        )
    for name, policy in details["policies"].items():
        laps = policy["test"]
        if laps is None:  # the training diverged
            lines.append(f"| `{name}` | failed | | {policy['cpu_seconds']:.0f} |")
            continue
        lines.append(
            f"| `{name}` | {laps['lap_rate']:.0%} | {laps['charged_lap_steps']:.0f} | "
            f"{policy['cpu_seconds']:.0f} |"
        )
    return [*lines, ""]


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the share of test tracks lapped, one panel for each data set."""
    titles = measured_titles(results)
    figure = Figure(figsize=(5 * len(titles), 3.2), layout="constrained")
    panels = figure.subplots(1, len(titles))
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        details = results["measured"][f"quality {name}"]
        rates = {each: both["recorded"]["lap_rate"] for each, both in details["drivers"].items()}
        drivers = len(rates)
        for each, one in details["policies"].items():
            if one["test"] is None:
                rates[f"{each} (failed)"] = 0.0
            else:
                rates[each] = one["test"]["lap_rate"]
        colours = ["C7"] * drivers + ["C0"] * (len(rates) - drivers)
        axes.barh(list(rates), list(rates.values()), color=colours)
        axes.invert_yaxis()
        axes.set(title=title, xlabel="test tracks lapped", xlim=(0, 1))
    figure.savefig(path, dpi=110)


def main() -> None:
    results = json.loads(RESULTS.read_text())
    draw(results, PICTURE)
    replace_text(PAGE, markdown(results))


if __name__ == "__main__":
    main()
