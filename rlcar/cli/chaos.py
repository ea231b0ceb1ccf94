"""`rlcar chaos`: kills parts of a training and measures what it costs."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlcar.cli.shared import RUNS, RayAddress, RunsFolder, Settings, cluster_imports, number, say
from rlcar.errors import UserError
from rlcar.system import terminal
from rlcar.system.console import make_console

if TYPE_CHECKING:
    from cluster.chaos.kills import KillPlan
    from cluster.config import ClusterConfig

_DEFAULT_MINUTES = 10.0

Minutes = Annotated[
    float | None,
    number(0.1, 100_000, help="Minutes during which to kill (default: 10, or until --kills)."),
]
Kills = Annotated[int | None, number(1, 1_000_000, help="Number of kills, at most.")]
Run = Annotated[
    Path | None,
    typer.Option(help="Folder of a training that runs in the cluster of --address already."),
]
Job = Annotated[
    str | None,
    typer.Option(help="Ray job of the training of --run, where the cluster runs several."),
]
Kinds = Annotated[str, typer.Option(help="Faults to inject, of: simulator, hang, learner, driver.")]
Seed = Annotated[int, number(0, 2**31 - 1, help="Seed of the order of the kills.")]
Preset = Annotated[
    str | None, typer.Option(help="Preset of the training that is started without --run.")
]
Mode = Annotated[
    str, typer.Option(help="Mode of the training that is started without --run: standard or test.")
]
Simulators = Annotated[
    int | None,
    number(1, 65_536, help="Number of simulators of the training that is started without --run."),
]
SimulatorDeadline = Annotated[
    float,
    number(
        0.001,
        1_000_000,
        help="Seconds after which the training that is started without --run replaces a silent "
        "simulator.",
    ),
]
Name = Annotated[
    str | None, typer.Option(help="Folder name of the training that is started without --run.")
]
Window = Annotated[float, number(0.5, 86_400, help="Seconds over which a rate is measured.")]
Out = Annotated[
    Path | None, typer.Option(help="File for the report (default: chaos.json beside the run).")
]


def chaos(
    minutes: Minutes = None,
    kills: Kills = None,
    address: RayAddress = None,
    run: Run = None,
    job: Job = None,
    kinds: Kinds = "simulator,hang,learner,driver",
    seed: Seed = 0,
    preset: Preset = None,
    mode: Mode = "standard",
    set_: Settings = None,
    simulators: Simulators = None,
    simulator_deadline_s: SimulatorDeadline = 20.0,
    name: Name = None,
    runs: RunsFolder = RUNS,
    window_s: Window = 5.0,
    out: Out = None,
) -> None:
    """Kills simulators, the learner and the driver of a training in random order, and reports.

    Without --run it starts a training of its own, the only one whose driver it kills too.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if run is not None and address is None:
        raise UserError("--run is a training that runs in a cluster: name that one with --address")
    with cluster_imports():
        from cluster.chaos.kills import KillPlan
        from cluster.chaos.report import write_report
        from cluster.config import make_cluster_config
    from rlcar.runs.folders import require_plain_name

    if minutes is None and kills is None:
        minutes = _DEFAULT_MINUTES
    words = [word.strip() for word in kinds.split(",") if word.strip()]
    plan = KillPlan(kills, minutes, words, seed)
    cluster = make_cluster_config(address=address, simulators=simulators)
    with terminal.outlived():
        if run is not None:
            report = _attack_running(plan, cluster, run, job, window_s)
            written = out or run / "chaos.json"
        else:
            folder = runs / (name or f"chaos-{time.strftime('%Y%m%d-%H%M%S')}")
            require_plain_name(folder.name if name is None else name)
            arguments = _train_arguments(preset, mode, set_ or [])
            arguments += ["--cluster", f"simulator_deadline_s={simulator_deadline_s}"]
            arguments += ["--simulators", str(simulators)] if simulators else []
            report = _attack_own(plan, cluster, folder, arguments, window_s)
            written = out or folder / "chaos.json"
        write_report(written, report)
        _print_report(report, written)
    if not report["completed"] or report["checkpoints_lost"]:
        why = report["failure"] or f"{report['checkpoints_lost']} checkpoints lost"
        raise UserError(f"the training did not survive unharmed ({why}): see {written}")


def _attack_running(
    plan: "KillPlan", cluster: "ClusterConfig", run: Path, job: str | None, window_s: float
) -> dict[str, Any]:
    with cluster_imports():
        from cluster.chaos.run import against_running_training

    return against_running_training(plan, cluster, run, job, window_s=window_s, say=say)


def _attack_own(
    plan: "KillPlan", cluster: "ClusterConfig", folder: Path, arguments: list[str], window_s: float
) -> dict[str, Any]:
    with cluster_imports():
        from cluster.chaos.run import against_own_training

    report = against_own_training(plan, cluster, folder, arguments, window_s=window_s, say=say)
    return report | {"lap_rate": _lap_rate(folder)}


def _train_arguments(preset: str | None, mode: str, settings: list[str]) -> list[str]:
    """Returns the options of `rlcar train`; without other settings the training does not end."""
    overrides = ["training.env_steps=100000000", "training.checkpoint_every_s=5"]
    overrides += ["training.log_every_s=0.2", *settings]
    words = ["--mode", mode] + (["--preset", preset] if preset else [])
    return words + [word for override in overrides for word in ("--set", override)]


def _lap_rate(folder: Path) -> float | None:
    from rlcar.runs.metrics_file import read_metrics

    lap_rates = [
        row["evaluation/lap_rate"]
        for row in read_metrics(folder / "metrics.jsonl")
        if "evaluation/lap_rate" in row
    ]
    return lap_rates[-1] if lap_rates else None


def _print_report(report: dict[str, Any], written: Path) -> None:
    from cluster.chaos.report import make_table

    screen = make_console()
    screen.print(make_table(report))
    screen.print(f"written: {written}", highlight=False, soft_wrap=True)
    for name in ("kills", "checkpoints_lost", "env_steps_lost", "lap_rate"):
        value = report.get(name)
        screen.print(f"figure {name}={'none' if value is None else value}", highlight=False)
