"""`rlcar tune`: searches for good settings with many trainings at once."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rlcar.cli.shared import RayAddress, Settings, cluster_imports, console, number, say
from rlcar.errors import ConfigError, UserError, command
from rlcar.system.console import make_console


def tune(
    sweep: Annotated[
        Path, typer.Argument(help="YAML file of the sweep, e.g. tune_configs/smoke.yaml.")
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continues the sweep where it stopped.")
    ] = False,
    resume_or_begin: Annotated[
        bool,
        typer.Option(
            "--resume-or-begin",
            help="As --resume, but begins the sweep if there is none yet; for retried jobs.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the sweep's folder below --sweeps (default: as in the file)."),
    ] = None,
    trials: Annotated[
        int | None,
        number(1, 65_536, help="Number of trials, in place of the file's budget.trials."),
    ] = None,
    set_: Settings = None,
    address: RayAddress = None,
    sweeps: Annotated[Path, typer.Option(help="Folder in which sweeps are kept.")] = Path("sweeps"),
) -> None:
    """Searches settings with many trainings; writes tables, pages and the best settings."""
    # Trials choose their own devices. This process only watches, and must leave accelerators free.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with cluster_imports():
        from cluster.sweeps.file import load_sweep
        from cluster.sweeps.results import print_results
        from cluster.sweeps.sweep import new_sweep_folder, run_sweep, stored_sweep

    if resume_or_begin:
        resume = (sweeps / (name or _name_of(sweep)) / "sweep.yaml").exists()
    if resume:
        given = {"--trials": trials, "--set": set_}
        ignored = [option for option, value in given.items() if value]
        if ignored:
            console.print(f"a resumed sweep keeps its own settings: {', '.join(ignored)} ignored")
        folder = sweeps / (name or _name_of(sweep))
        settings = stored_sweep(folder)
    else:
        settings = load_sweep(sweep, trials=trials, overrides=_dotted(set_ or []))
        folder = new_sweep_folder(sweeps, name or settings.name, settings)
    console.print(f"sweep folder: {folder}", markup=False)
    outcome = run_sweep(settings, folder, address)
    print_results(settings, outcome.results, make_console())
    if outcome.interrupted:
        words = ["tune", sweep, "--resume", "--name", folder.name, "--sweeps", sweeps]
        words += [] if address is None else ["--address", address]
        say(f"stopped; continue with: {command(*words)}")
        sys.exit(130)
    if not any(result.score for result in outcome.results):
        reason = next((result.reason for result in outcome.results if result.reason), "none said")
        raise UserError(f"no trial of {folder} came to an evaluation; the first reason: {reason}")
    console.print(f"written: {folder}/index.html, best.yaml", markup=False)


def _name_of(sweep: Path) -> str:
    """Returns the name of the sweep's folder; the file may be gone by now."""
    from rlcar.settings.files import read_yaml

    named = read_yaml(sweep).get("name") if sweep.exists() else None
    return named if isinstance(named, str) else sweep.stem


def _dotted(settings: list[str]) -> dict[str, Any]:
    """Reads `a.b=c`, values as YAML."""
    from rlcar.config import parse_override

    found = {}
    for text in settings:
        value: Any = parse_override(text)
        name = text.partition("=")[0]
        for part in name.split("."):
            value = value[part]
        if isinstance(value, dict | list):
            raise ConfigError(f"override {text!r}: name the settings of a section one by one")
        found[name] = value
    return found
