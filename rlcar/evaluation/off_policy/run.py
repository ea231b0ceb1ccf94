"""Off-policy evaluation of policies on a data set: report, table and picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from rlcar.datasets import Dataset
from rlcar.evaluation.laps import write_json
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.evaluation.off_policy.logged import read_logged
from rlcar.evaluation.off_policy.pictures import draw_report
from rlcar.evaluation.off_policy.policies import NamedPolicy, actions_of
from rlcar.evaluation.off_policy.regions import regions_of
from rlcar.evaluation.off_policy.report import evaluate
from rlcar.storage.checkpoint import provenance
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

_COLUMNS = ("return", "difference", "outside\n[%]")


def estimate(
    dataset: Dataset,
    policies: Sequence[NamedPolicy],
    folder: Path | None,
    settings: FittedQSettings,
    *,
    most_transitions: int = 200_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluates policies on a data set; writes `ope.json` and `ope.png` into a folder, if given.

    Returns the contents of `ope.json`.
    """
    logged = read_logged(dataset, most_transitions, seed)
    regions = regions_of(dataset, logged)
    console = make_console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("reading the policies", total=None)
        actions = {named.name: actions_of(named, logged) for named in policies}
        report = evaluate(
            logged,
            actions,
            settings,
            regions=regions,
            seed=seed,
            on_policy=lambda name: bar.update(task, description=f"evaluating {escape(name)}"),
        )
    report |= {
        "data": str(dataset.folder),
        "data_sha256": dataset.fingerprint,
        "world": dataset.world.label,
        "settings": {**settings._asdict(), "most_transitions": most_transitions, "seed": seed},
        "provenance": provenance(seed),
    }
    if folder is not None:
        draw_report(folder / "ope.png", report)
        write_json(folder / "ope.json", report)
    return report


def print_report(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the policies under one another, the highest estimate first."""
    console = console or make_console()
    behaviour = report["behaviour"]
    table = make_table(
        *("policy", "verdict", *_COLUMNS, "reason"),
        right=_COLUMNS,
        whole=("verdict",),
        title=(f"{report['episodes']:,} episodes, discount {report['discount']:g}, 95 % intervals"),
    )
    for name, result in report["policies"].items():
        table.add_row(
            escape(name),
            result["verdict"],
            _interval(result["estimate"]),
            _interval(result["difference"]),
            f"{100 * result['outside_support']:.1f}",
            result["reason"],
        )
    table.add_section()
    table.add_row("recorded", "", f"{behaviour['return']:.4g}", "", "", "the episodes themselves")
    console.print(table)
    for warning in report["warnings"]:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
    for name, result in report["policies"].items():
        for warning in result["warnings"]:
            text = f"[yellow]warning:[/] {escape(name)}: {escape(warning)}"
            console.print(text, highlight=False)


def _interval(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate['mean']:.4g}\n{estimate['low']:.4g}–{estimate['high']:.4g}"
