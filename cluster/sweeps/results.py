"""The result files of a sweep: tables, pages, and the best settings, ready for training."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cluster.sweeps.config import SweepConfig
from cluster.sweeps.history import TrialResult
from cluster.sweeps.pages import curves_page, format_value, index_page, parallel_page
from rlcar.config import Config
from rlcar.evaluation.json_file import write_json
from rlcar.system.durable import explaining_write_errors, replace_text
from rlcar.system.tables import make_table


def write_results(sweep: SweepConfig, folder: Path, results: Sequence[TrialResult]) -> None:
    """Writes all result files, each complete or unchanged; raises UserError on a full disk."""
    pages = {
        "results.csv": _csv(sweep, results),
        "index.html": index_page(sweep, results),
        "learning_curves.html": curves_page(sweep, results),
        "parallel_coordinates.html": parallel_page(sweep, results),
    }
    if results and results[0].score:
        pages["best.yaml"] = best_yaml(sweep, results[0])
    with explaining_write_errors(folder):
        write_json(folder / "results.json", _json(sweep, results))
        for name, text in pages.items():
            replace_text(folder / name, text)


def best_yaml(sweep: SweepConfig, result: TrialResult) -> str:
    """Returns all settings of a trial at its best, for `rlcar train --config`."""
    assert result.score, result
    config, cluster = sweep.settings(result.settings)
    listed = "".join(f"#   {name} = {value}\n" for name, value in result.settings.items())
    simulators = f" --simulators {cluster.simulators}" if cluster else ""
    return (
        f"# Trial {result.name} of the sweep {sweep.name}: {sweep.metric} = "
        f"{result.score.value:.6g} after {result.score.env_steps} env steps, with\n{listed}"
        f"# Train with it: rlcar train --config best.yaml{simulators}\n"
        + yaml.safe_dump(_tree(config), sort_keys=False)
    )


def print_results(sweep: SweepConfig, results: Sequence[TrialResult], console: Console) -> None:
    """Prints a table of all trials, the best first, and the figures."""
    heads = ["trial", "status", "score", "at", "failures", *(_short(name) for name in sweep.space)]
    title = f"sweep {sweep.name}: {sweep.metric}"
    table = make_table(*heads, right=("score", "at", "failures"), title=title)
    for result in results:
        table.add_row(
            result.name,
            result.status,
            format_value(result.score.value) if result.score else "–",
            str(result.score.env_steps) if result.score else "–",
            str(result.failures),
            *(format_value(result.settings.get(name)) for name in sweep.space),
        )
    console.print(table)
    best = results[0].score if results else None
    figures = {
        "trials": len(results),
        "best_score": best.value if best else None,
        **{
            f"trials_{status}": sum(result.status == status for result in results)
            for status in ("done", "stopped", "diverged", "failed", "unfinished")
        },
        "failures": sum(result.failures for result in results),
    }
    for name, value in figures.items():
        text = "none" if value is None else f"{value:.6g}"
        console.print(f"figure {name}={text}", highlight=False)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _tree(config: Config) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(config.model_dump_json())
    return tree


def _csv(sweep: SweepConfig, results: Sequence[TrialResult]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ["trial", "status", "score", "score_env_steps", "env_steps", "train_seconds"]
    writer.writerow([*heads, "failures", "reason", *sweep.space])
    for result in results:
        score = result.score
        writer.writerow(
            [
                result.name,
                result.status,
                score.value if score else "",
                score.env_steps if score else "",
                result.env_steps,
                round(result.train_seconds, 1),
                result.failures,
                result.reason,
                *(result.settings.get(name, "") for name in sweep.space),
            ]
        )
    return text.getvalue()


def _json(sweep: SweepConfig, results: Sequence[TrialResult]) -> dict[str, Any]:
    trials = [
        {
            **result._asdict(),
            "score": result.score.value if result.score else None,
            "score_env_steps": result.score.env_steps if result.score else None,
        }
        for result in results
    ]
    return {
        "sweep": sweep.name,
        "metric": sweep.metric,
        "goal": sweep.direction,
        "settings": sweep.model_dump(exclude_unset=True),
        "trials": trials,
    }
