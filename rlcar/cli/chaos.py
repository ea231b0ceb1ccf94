"""`rlcar chaos`: kills parts of a training and says what it cost."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rlcar.cli.shared import RUNS, Settings, console, number
from rlcar.errors import UserError
from rlcar.system import terminal
from rlcar.system.console import make_console


def chaos(
    minutes: Annotated[
        float | None, number(0.1, 100_000, help="How long to kill (default: 10, or --kills).")
    ] = None,
    kills: Annotated[int | None, number(1, 1_000_000, help="How many kills, at most.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, host:port or auto.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The folder of a training that runs in that cluster.")
    ] = None,
    job: Annotated[
        str | None, typer.Option(help="Its Ray job, where several trainings run.")
    ] = None,
    kinds: Annotated[
        str, typer.Option(help="What to do: simulator, hang, learner, driver.")
    ] = "simulator,hang,learner,driver",
    seed: Annotated[int, number(0, 2**31 - 1, help="Of the order of the kills.")] = 0,
    preset: Annotated[str | None, typer.Option(help="Of its own training.")] = None,
    mode: Annotated[str, typer.Option(help="Of its own training.")] = "standard",
    set_: Settings = None,
    simulators: Annotated[int | None, number(1, 65_536, help="Of its own training.")] = None,
    simulator_deadline_s: Annotated[
        float, number(0.001, 1_000_000, help="Of its own training.")
    ] = 20.0,
    name: Annotated[str | None, typer.Option(help="Folder of its own training.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = RUNS,
    window_s: Annotated[
        float, number(0.5, 86_400, help="Seconds over which a rate is measured.")
    ] = 5.0,
    out: Annotated[Path | None, typer.Option(help="The report (default: beside the run).")] = None,
) -> None:
    """Kills simulators, the learner and the driver of a training in random order, and reports.

    Without --run it starts a training of its own, the only one whose driver it kills too.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if run is not None and address is None:
        raise UserError("--run is a training that runs in a cluster: name that one with --address")
    try:
        from cluster.chaos.kills import KillPlan
        from cluster.chaos.report import write_report
        from cluster.chaos.run import against_own_training, against_running_training
        from cluster.config import make_cluster_config
        from rlcar.runs.folders import require_plain_name
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError("Ray is not installed: pip install 'rlcar[cluster]'") from error

    if minutes is None and kills is None:
        minutes = 10.0
    words = [word.strip() for word in kinds.split(",") if word.strip()]
    plan = KillPlan(kills, minutes, words, seed)
    cluster = make_cluster_config(address=address, simulators=simulators)
    common: dict[str, Any] = {"window_s": window_s, "say": _say}
    with terminal.outlived():
        if run is not None:
            report = against_running_training(plan, cluster, run, job, **common)
            written = out or run / "chaos.json"
        else:
            folder = runs / (name or f"chaos-{time.strftime('%Y%m%d-%H%M%S')}")
            require_plain_name(folder.name if name is None else name)
            arguments = _train_arguments(preset, mode, set_ or [])
            arguments += ["--cluster", f"simulator_deadline_s={simulator_deadline_s}"]
            arguments += ["--simulators", str(simulators)] if simulators else []
            report = against_own_training(plan, cluster, folder, arguments, **common)
            report |= {"lap_rate": _lap_rate(folder)}
            written = out or folder / "chaos.json"
        write_report(written, report)
        _print_report(report, written)
    if not report["completed"] or report["checkpoints_lost"]:
        why = report["failure"] or f"{report['checkpoints_lost']} checkpoints lost"
        raise UserError(f"the training did not survive unharmed ({why}): see {written}")


def _train_arguments(preset: str | None, mode: str, settings: list[str]) -> list[str]:
    """What `rlcar train` is started with; it does not end of itself unless the user says so."""
    overrides = ["training.env_steps=100000000", "training.checkpoint_every_s=5"]
    overrides += ["training.log_every_s=0.2", *settings]
    words = ["--mode", mode] + (["--preset", preset] if preset else [])
    return words + [word for override in overrides for word in ("--set", override)]


def _lap_rate(folder: Path) -> float | None:
    from rlcar.runs.metrics_file import read_metrics

    seen = [
        row["evaluation/lap_rate"]
        for row in read_metrics(folder / "metrics.jsonl")
        if "evaluation/lap_rate" in row
    ]
    return seen[-1] if seen else None


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _print_report(report: dict[str, Any], written: Path) -> None:
    from cluster.chaos.report import make_table

    screen = make_console()
    screen.print(make_table(report))
    screen.print(f"written: {written}", highlight=False)
    for name in ("kills", "checkpoints_lost", "env_steps_lost", "lap_rate"):
        value = report.get(name)
        screen.print(f"figure {name}={'none' if value is None else value}", highlight=False)
