"""`rlcar train`: resolves the settings, trains in one process or on Ray, reports."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rlcar.cli.shared import RUNS, Settings, console
from rlcar.errors import StorageError, UserError


def train(
    preset: Annotated[
        str | None,
        typer.Option(help="nano, nano-grand-prix, small, medium, gymnasium, fused-ppo, …"),
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="dreamer (the default), documented, ppo, sac or td3.")
    ] = None,
    world: Annotated[
        str | None, typer.Option(help="classic (the default), grand-prix, or a stage grand-prix-1.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="A Gymnasium environment instead, e.g. rlcar/Catch-v0.")
    ] = None,
    mode: Annotated[str, typer.Option(help="standard, or test: everything, tiny.")] = "standard",
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings.")] = None,
    set_: Settings = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same run.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder below --runs.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = RUNS,
    resume: Annotated[
        str | None, typer.Option(help="A run or a checkpoint to continue, or auto.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="RLCAR_STORAGE",
            help="Mirrors the run: s3://bucket/prefix, file:///folder or /folder.",
        ),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="One process, no Ray.")] = False,
    debug_nans: Annotated[
        bool, typer.Option("--debug-nans", help="Stops at the operation that makes a NaN; slow.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, host:port or auto.")
    ] = None,
    simulators: Annotated[
        str | None,
        typer.Option(
            help="Simulator processes (default: the free cores), or auto: as nodes come and go."
        ),
    ] = None,
    cluster_set: Annotated[
        list[str] | None,
        typer.Option("--cluster", help="A setting of processes, e.g. simulator_cpus=0.5."),
    ] = None,
) -> None:
    """Trains a policy, then drives unseen tracks with it and writes the report."""
    if local and (address or simulators or cluster_set):
        raise UserError(
            "--local runs in one process: leave out --address, --simulators and --cluster"
        )
    if debug_nans and not local:
        raise UserError("--debug-nans looks into one process: add --local")
    if debug_nans:
        os.environ["JAX_DEBUG_NANS"] = "true"  # read when JAX is imported
    if not local:
        # The learner decides for itself; this process only evaluates, and must leave it the card.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from rlcar.checkpoint import config_path
    from rlcar.config import load_config, make_config
    from rlcar.evaluate_run import evaluate_run
    from rlcar.run import find_save, new_run_folder, require_run

    settings: dict[str, Any] = {} if seed is None else {"seed": seed}
    if storage is not None:
        set_ = [*(set_ or []), f"training.storage={json.dumps(storage)}"]
        _look_into_storage(storage, runs, resume, name)
    save = None if resume is None else find_save(runs, resume, name)
    if save is None:
        resolved = make_config(
            preset,
            mode,
            config,
            set_ or [],
            world=world,
            algorithm=algorithm,
            environment=env,
            **settings,
        )
        folder = new_run_folder(runs, name, resolved, may_restart=resume == "auto")
    else:
        folder = require_run(save.path)
        resolved = load_config(config_path(save), overrides=set_ or [])
        fixed = {
            "--preset": preset,
            "--algorithm": algorithm,
            "--world": world,
            "--env": env,
            "--config": config,
            "--seed": seed,
        }
        ignored = [option for option, value in fixed.items() if value is not None]
        if ignored:
            console.print(f"a resumed run keeps its own settings: {', '.join(ignored)} ignored")
    began = f"run folder: {folder}" + (f", continuing {save.path.name}" if save else "")
    if local:
        from rlcar.train import train as run_training

        console.print(began, markup=False)
        outcome = run_training(resolved, folder, save)
    else:
        from cluster.config import make_cluster_config, parse_cluster_settings

        given = {"address": address, "simulators": simulators}
        parts = [f"{name}={value}" for name, value in given.items() if value is not None]
        cluster = make_cluster_config(**parse_cluster_settings([*parts, *(cluster_set or [])]))
        run_cluster_training = _import_cluster_training()
        console.print(began, markup=False)
        outcome = run_cluster_training(resolved, cluster, folder, save)
    if outcome.interrupted:
        console.print(f"stopped; continue with: rlcar train --resume {folder}")
        sys.exit(130)
    evaluate_run(folder, resolved.training.evaluate_set, outcome.summary)


def _look_into_storage(url: str, runs: Path, resume: str | None, name: str | None) -> None:
    """Fetches what `--resume` means when it is newer there, or refuses a name that is taken."""
    from rlcar.run import find_save
    from rlcar.storage import Storage

    storage = Storage(url)
    if resume is not None:
        try:
            fetched = storage.fetch_newer(runs, resume, name)
        except StorageError as error:
            # What is here is enough to go on with, and the storage may come back.
            is_here = find_save(runs, resume, name) if resume == "auto" else Path(resume).exists()
            if not is_here:
                raise
            console.print(f"warning: {error}; going on with what is here", markup=False)
            return
        if fetched is not None:
            console.print(f"fetched from the storage: {fetched.path}", markup=False)
        return
    storage.check()
    if name is not None and storage.runs(name):
        raise UserError(
            f"{url} already holds a run {name}: continue it with --resume {runs / name}, or choose "
            "another --name"
        )


def _import_cluster_training() -> Any:
    try:
        from cluster.train import train as run_cluster_training
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError(
            "Ray is not installed: pip install 'rlcar[cluster]', or train with --local"
        ) from error
    return run_cluster_training
