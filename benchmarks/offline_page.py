"""Makes docs/offline-results.md and its picture from benchmarks/results/offline.json.

    python benchmarks/offline_page.py

The benchmarks whose names begin with `offline_` measure the figures.
"""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from offline_parts import RESULTS, ROOT

from rlcar.system.durable import replace_text

PAGE = ROOT / "docs" / "offline-results.md"
PICTURE = ROOT / "docs" / "images" / "offline.png"
TITLES = {"classic_narrow": "Classic on narrow roads", "grand_prix": "Grand prix"}
MEANINGS = {
    "choice_right_of_20": "seeded data sets, of 20, in which `rlcar offline` kept the candidate "
    "that is the best on the test tracks, or not distinguishably worse",
    "ope_rank_correlation": "rank correlation of estimated and simulated returns",
    "ope_unknown_of_10": "policies unlike the data, of 10, with the verdict `unknown`",
    "ope_coverage": "share of the intervals that contain the simulated return",
    "cql_updates_over_d3rlpy": "train steps of CQL for each CPU-second, relative to d3rlpy",
}


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
    for name, title in TITLES.items():
        lines += _data_set(title, results["measured"][f"quality {name}"])
    lines += ["## Choice, estimates and speed", "", "| Figure | Value |", "| --- | --- |"]
    lines += [f"| {text} | {results[name]:.4g} |" for name, text in MEANINGS.items()]
    lines += ["", "## Origin", "", "| Part | Command | Commit | Date | Machine |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for part, origin in sorted(results["measured"].items()):
        commit = (origin["provenance"]["commit"] or "unknown")[:7]
        cells = (part, f"`{origin['command']}`", commit, origin["date"], origin["machine"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


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
        lines.append(
            f"| `{name}` | {laps['lap_rate']:.0%} | {laps['charged_lap_steps']:.0f} | "
            f"{policy['cpu_seconds']:.0f} |"
        )
    return [*lines, ""]


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the share of test tracks lapped, one panel for each data set."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
        details = results["measured"][f"quality {name}"]
        rates = {each: both["recorded"]["lap_rate"] for each, both in details["drivers"].items()}
        drivers = len(rates)
        rates |= {each: one["test"]["lap_rate"] for each, one in details["policies"].items()}
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
