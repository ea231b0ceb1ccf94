"""Off-policy evaluation of policies on a data set: report, table and picture."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from rlcar.datasets import Dataset
from rlcar.errors import UserError
from rlcar.evaluation.json_file import write_json
from rlcar.evaluation.off_policy.fitted_q import FittedQSettings
from rlcar.evaluation.off_policy.logged import read_logged
from rlcar.evaluation.off_policy.pictures import draw_report
from rlcar.evaluation.off_policy.policies import NamedPolicy, actions_of
from rlcar.evaluation.off_policy.regions import regions_of
from rlcar.evaluation.off_policy.report import OnPolicy, evaluate, require_enough
from rlcar.storage.checkpoint import provenance
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

_COLUMNS = ("return", "difference", "outside\n[%]")


def estimate(
    dataset: Dataset,
    policies: Sequence[NamedPolicy],
    settings: FittedQSettings,
    *,
    baseline: NamedPolicy | None = None,
    most_transitions: int = 200_000,
    seed: int = 0,
    on_policy: OnPolicy = lambda name: None,
) -> dict[str, Any]:
    """Evaluates policies on a data set; writes and prints nothing.

    The verdict in `["policies"][name]["verdict"]` is `better`, `worse` or `unknown` relative to the
    baseline, or to the recorded behaviour without one. `on_policy` is called with the name of what
    is evaluated next. Raises DatasetError if the data or a policy's answers to it cannot be used,
    and UserError if two policies have the same name.
    """
    all_policies = [*policies, *([] if baseline is None else [baseline])]
    named = {each.name: each for each in all_policies}
    if not policies or len(named) < len(all_policies):
        names = ", ".join(each.name for each in all_policies) or "nothing"
        raise UserError(f"cannot compare {names}: name policies that differ from one another")
    logged = read_logged(dataset, most_transitions, seed)
    require_enough(logged.episodes)
    report = evaluate(
        logged,
        {name: actions_of(each, logged) for name, each in named.items()},
        settings,
        baseline=None if baseline is None else baseline.name,
        regions=regions_of(dataset, logged),
        seed=seed,
        on_policy=on_policy,
    )
    return report | {
        "data": str(dataset.folder),
        "data_sha256": dataset.fingerprint,
        "world": dataset.world.label,
        "settings": {**settings._asdict(), "most_transitions": most_transitions, "seed": seed},
        "provenance": provenance(seed),
    }


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes `ope.png` and then `ope.json` into a folder."""
    draw_report(folder / "ope.png", report)
    write_json(folder / "ope.json", report)


@contextmanager
def shown_progress() -> Iterator[OnPolicy]:
    """Shows on a terminal what is evaluated; gives the function to call with its name."""
    console = make_console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("reading the policies", total=None)
        yield lambda name: bar.update(task, description=f"evaluating {escape(name)}")


def print_report(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the policies under one another, the highest estimate first."""
    console = console or make_console()
    behaviour, baseline = report["behaviour"], report["baseline"]
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
            escape(result["reason"]),
        )
    table.add_section()
    if baseline is not None:
        about = "" if baseline["estimate"] is not None else baseline["reason"]
        table.add_row(
            escape(baseline["name"]),
            "",
            _interval(baseline["estimate"]),
            "",
            f"{100 * baseline['outside_support']:.1f}",
            escape(f"the baseline: {about}") if about else "the baseline",
        )
    table.add_row("recorded", "", f"{behaviour['return']:.4g}", "", "", "the episodes themselves")
    console.print(table)
    for warning in report["warnings"]:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
    baselines = {} if baseline is None else {baseline["name"]: baseline}
    for name, result in {**report["policies"], **baselines}.items():
        for warning in result["warnings"]:
            text = f"[yellow]warning:[/] {escape(name)}: {escape(warning)}"
            console.print(text, highlight=False)


def _interval(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate['mean']:.4g}\n{estimate['low']:.4g}–{estimate['high']:.4g}"
