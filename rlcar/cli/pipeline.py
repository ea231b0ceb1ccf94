"""`rlcar pipeline`: learns from recorded sessions again and again."""

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import (
    MODELS,
    AsJson,
    PythonOnHead,
    Where,
    cluster_imports,
    number,
    prepare_jax_on_cpu,
    say,
)
from rlcar.errors import UserError, command
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

if TYPE_CHECKING:
    from cluster.pipeline.run import Execute
    from cluster.pipeline.settings import PipelineSettings


def pipeline(
    file: Annotated[Path, typer.Argument(help="YAML file of the pipeline.")],
    once: Annotated[
        bool, typer.Option("--once", help="Continues or makes one run, then ends (default).")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Looks for new episodes again and again, as a service.")
    ] = False,
    interval: Annotated[
        str, typer.Option(help="Time between two looks with --watch, such as 30s, 10m, 1h or 1d.")
    ] = "1h",
    status: Annotated[
        bool, typer.Option("--status", help="Shows the runs and their stages, and does nothing.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Ends the open run; its episodes are new again.")
    ] = False,
    stage: Annotated[
        str | None, typer.Option(help="Runs the next stage of the open run alone.", hidden=True)
    ] = None,
    run: Annotated[
        int, number(0, 2**31 - 1, help="Number of the run that --stage belongs to.", hidden=True)
    ] = 0,
    address: Annotated[
        str | None,
        typer.Option(
            help="Dashboard of a Ray cluster on which to train and to simulate: host, host:8265 or "
            "URL (default: this process)."
        ),
    ] = None,
    python: PythonOnHead = "python",
    registry: Where = MODELS,
    as_json: AsJson = False,
) -> None:
    """Collects recorded sessions, trains a candidate, tests it and rolls it out.

    Exit codes: 0 promoted or nothing to do, 2 a mistake or a fault, 3 stopped before the rollout
    (data, training or gate), 4 rolled back, 130 interrupted. The same command continues a run that
    was interrupted.
    """
    if sum((once, watch, status, abandon, stage is not None)) > 1:
        raise UserError("choose one of --once, --watch, --status and --abandon")
    prepare_jax_on_cpu()
    with cluster_imports():
        from cluster.pipeline.settings import read_settings

    settings = read_settings(file)
    of_registry = [] if settings.registry else ["--registry", registry]
    settings = settings.model_copy(update={"registry": settings.registry or registry})
    if status:
        _show(settings, as_json)
    elif abandon:
        from cluster.pipeline.run import abandon as abandon_run

        say(abandon_run(settings))
    elif stage is not None:
        from cluster.pipeline.run import run_stage
        from rlcar.registry import Registry

        say(run_stage(settings, Registry(settings.registry), say, stage, run))
    else:
        words = [str(file), *of_registry]
        execute = None if address is None else _on_cluster(words, settings, address, python)
        mode = ["--watch", "--interval", interval] if watch else ["--once"]
        mode += [] if address is None else ["--address", address, "--python", python]
        again = command("pipeline", file, *mode, *of_registry)
        _run(settings, interval if watch else None, execute, again)


def _on_cluster(
    words: list[str], settings: "PipelineSettings", address: str, python: str
) -> "Execute":
    with cluster_imports(", or leave out --address"):
        from cluster.jobs.dashboard import connect
        from cluster.pipeline.ray_jobs import on_cluster, require_shared

    require_shared(settings)

    def show(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    return on_cluster(connect(address), words, show, python)


def _run(
    settings: "PipelineSettings",
    interval: str | None,
    execute: "Execute | None",
    again: str,
) -> None:
    """Runs the pipeline; `again` is the command that continues it."""
    from cluster.pipeline.run import run_here, run_once
    from cluster.pipeline.run import watch as watch_runs
    from cluster.pipeline.settings import parse_duration
    from rlcar.offline.candidates import StoppedError
    from rlcar.registry import Registry

    interval_s = None if interval is None else parse_duration("--interval", interval)
    models = Registry(settings.registry)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as systemd stops a service
    try:
        if interval_s is None:
            ending = run_once(settings, models, say, execute or run_here)
            say(ending.sentence)
            sys.exit(ending.exit_code)
        watch_runs(lambda: run_once(settings, models, say, execute or run_here), interval_s, say)
    except (KeyboardInterrupt, StoppedError):
        say(f"stopped; continue with: {again}")
        sys.exit(130)


def _show(settings: "PipelineSettings", as_json: bool) -> None:
    """Prints every run, the newest last."""
    from cluster.pipeline.journal import runs

    found = runs(Path(settings.folder))
    if as_json:
        tree = [
            {
                "run": run.number,
                "began_s": run.began_s,
                "outcome": run.outcome,
                "stages": [entry._asdict() for entry in run.entries()],
            }
            for run in found
        ]
        typer.echo(json.dumps(tree, indent=2, allow_nan=False))
        return
    if not found:
        say(f"{settings.name} has not run yet")
        return
    table = make_table("run", "stage", "seconds", "result", right=("seconds",))
    for run in found:
        for entry in run.entries():
            ended = "" if entry.outcome is None else f"{entry.outcome}: "
            seconds = f"{entry.ended_s - entry.began_s:.1f}"
            table.add_row(str(run.number), entry.stage, seconds, f"{ended}{entry.sentence}")
        if run.outcome is None:
            table.add_row(str(run.number), "", "", "open")
    make_console().print(table, markup=False)
