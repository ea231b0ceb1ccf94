"""Makes docs/results.md and its picture from docs/results.json; `results.py` is its command."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def markdown(results: dict[str, Any]) -> str:
    """Returns the page."""
    lines = [
        "# Results",
        "",
        "Written by `python benchmarks/results.py render` from [`results.json`](results.json);",
        "nothing here is typed by hand. A score is the lap time in percent over its lower bound,",
        "on the 64 test tracks; a track that is not lapped counts as 1,000 steps. The tables show",
        "interquartile means over seeds and tracks, with 95 % bootstrap intervals. The bootstrap",
        "uses tracks as strata and redraws whole seeds, because one policy drives all tracks. With",
        "so few seeds the intervals are too narrow.",
        "",
    ]
    if "classic" in results:
        lines += _classic_table(results["classic"])
    if "grand_prix" in results:
        lines += _grand_prix_tables(results["grand_prix"])
    lines += [
        "The mean over seeds, and from the worst to the best of them:",
        "",
        "![Share of validation tracks lapped by env steps](images/results.png)",
        "",
    ]
    runs = list(runs_of(results))
    lines += ["## Settings", ""] + [f"- {line}" for line in _settings(runs)] + [""]
    commits = sorted({(run["commit"] or "unknown")[:7] for run in runs})
    days = sorted({run["created"][:10] for run in runs})
    machines = sorted({run["machine"] for run in runs})
    versions = sorted({"Python {python}, jax {jax}".format(**run["versions"]) for run in runs})
    lines += [
        f"Commits {', '.join(commits)}; {', '.join(days)}; {' and '.join(machines)}; "
        f"{' and '.join(versions)}.",
    ]
    return "\n".join(lines) + "\n"


def _classic_table(cells: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "## Classic",
        "",
        "`python benchmarks/results.py classic`. Env steps and seconds count until the policy laps",
        "90 % of the validation tracks and stays there until its run ends: the median over seeds,",
        "or `-` if not every seed reached 90 %. The next column says how many did.",
        "",
        "| Algorithm | Seeds | Env steps | Seconds | Reached 90 % | Lap rate | Over the bound |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in sorted(cells, key=lambda name: cells[name]["env_steps_to_90"] or math.inf):
        cell = cells[name]
        lines.append(
            f"| {name} | {cell['seeds']} | {_number(cell['env_steps_to_90'])} | "
            f"{_number(cell['seconds_to_90'])} | {cell['env_steps_to_90_runs']} | "
            f"{cell['lap_rate']:.1%} | {_interval(cell)} |"
        )
    return [*lines, ""]


def _grand_prix_tables(tables: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    lines = [
        "## Grand prix",
        "",
        "`python benchmarks/results.py grand-prix`. Env steps: those driven, in whole blocks.",
        "",
    ]
    for env_steps, cells in tables.items():
        lines += [
            f"After {int(env_steps):,} env steps:",
            "",
            "| Algorithm | Seeds | Env steps | Lap rate | Over the bound |",
            "| --- | --- | --- | --- | --- |",
        ]
        order = sorted(cells, key=lambda name: cells[name]["score_over_bound_pct"]["iqm"])
        lines += [
            f"| {name} | {cells[name]['seeds']} | {_number(cells[name]['env_steps'])} | "
            f"{cells[name]['lap_rate']:.1%} | {_interval(cells[name])} |"
            for name in order
        ]
        lines.append("")
    return lines


def _settings(runs: list[dict[str, Any]]) -> list[str]:
    """Returns for each row of the tables the command that trains one of its runs."""
    found: dict[tuple[str, str], dict[str, set[int]]] = {}
    for run in runs:
        words = ["rlcar train --local", f"--world {run['world']}", f"--preset {run['preset']}"]
        words += [f"--set {setting}" for setting in run["settings"]]
        commands = found.setdefault((run["world"], run["name"]), {})
        commands.setdefault(" ".join(words), set()).add(run["env_steps_asked"])
    lines = []
    for (_, name), commands in sorted(found.items()):
        for command, env_steps in commands.items():
            until = " and ".join(f"{n:,}" for n in sorted(env_steps))
            only = f" for {until} env steps" if len(commands) > 1 else ""
            command += f" --set training.env_steps={max(env_steps)} --seed N"
            lines.append(f"`{name}`{only}: `{command}`")
    return lines


def runs_of(tree: Any) -> Any:
    """Yields every training that the tables are computed from."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == "runs":
                yield from value
            else:
                yield from runs_of(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _interval(cell: dict[str, Any]) -> str:
    score = cell["score_over_bound_pct"]
    return f"{score['iqm']:.1f} % [{score['iqm_low']:.1f}, {score['iqm_high']:.1f}]"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the share of validation tracks lapped by env steps, one panel for each table."""
    tables = {"classic": results.get("classic", {})} | {
        f"grand prix, {int(env_steps):,} env steps": cells
        for env_steps, cells in list(results.get("grand_prix", {}).items())[1:]
    }  # without the first table: the second has the same curves, and longer ones
    colours: dict[str, str] = {}
    figure = Figure(figsize=(5 * len(tables), 4), layout="constrained")
    for axes, (title, cells) in zip(figure.subplots(1, len(tables)), tables.items(), strict=True):
        for name, cell in sorted(cells.items()):
            color = colours.setdefault(name, f"C{len(colours)}")
            curves = [np.array(row["curve"], float)[:, [0, 2]].T for row in cell["runs"]]
            env_steps = curves[0][0]
            rates = np.array([np.interp(env_steps, *curve) for curve in curves])
            axes.plot(env_steps, rates.mean(axis=0), color=color, linewidth=1)
            low, high = rates.min(axis=0), rates.max(axis=0)
            axes.fill_between(env_steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel="env steps", ylabel="validation tracks lapped", ylim=(0, 1.02))
        axes.set_xscale("log")
    lines = [Line2D([], [], color=color, label=name) for name, color in colours.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    figure.savefig(path, dpi=110)
