"""`rlcar train`: resolves the settings, trains in one process or on Ray, reports."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rlcar.cli.shared import MODELS, RUNS, Settings, Where, import_cluster, number, say
from rlcar.devices import compile_cache
from rlcar.errors import StorageError, UserError, command
from rlcar.system import logs, terminal


def train(
    preset: Annotated[
        str | None,
        typer.Option(help="nano, nano-grand-prix, small, medium, gymnasium, fused-ppo, …"),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="Learning algorithm (default: that of the preset); an unknown name lists all."
        ),
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
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of everything random. With --local or --deterministic, equal seeds and settings "
            "give equal runs on equal machines; otherwise timing has an influence."
        ),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Makes two runs with equal settings equal bit for bit, also on Ray; slower.",
        ),
    ] = False,
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
    page: Annotated[
        bool, typer.Option("--page", help="Shows the run live, as rlcar watch does.")
    ] = False,
    page_port: Annotated[int, number(0, 65_535, help="Of --page.")] = 8001,
    log_format: Annotated[str, typer.Option(help="text, or json: for programs.")] = "text",
    cluster_set: Annotated[
        list[str] | None,
        typer.Option("--cluster", help="A setting of processes, e.g. simulator_cpus=0.5."),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="The best policy becomes a version at the end.")
    ] = False,
    registry: Where = MODELS,
) -> None:
    """Trains a policy, then drives unseen tracks with it and writes the report."""
    _refuse_together(local, debug_nans, bool(address or simulators or cluster_set), log_format)
    if debug_nans:
        os.environ["JAX_DEBUG_NANS"] = "true"  # read when JAX is imported
    if not local:
        # The learner decides for itself; this process only evaluates, and must leave it the card.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    compile_cache.prepare_jax()
    from rlcar.agents import make_agent
    from rlcar.config import load_config, make_config
    from rlcar.evaluation.environment import spec_of
    from rlcar.runs.run import find_save, new_run_folder, require_run
    from rlcar.storage.checkpoint import config_path
    from rlcar.system.lease import WAIT_S, hold
    from rlcar.training.trainer import refuse_other_algorithm

    announce = _publisher(registry) if publish else _published_nowhere
    given = {"address": address, "simulators": simulators}
    parts = [f"{option}={value}" for option, value in given.items() if value is not None]
    run_training = _training(None if local else [*parts, *(cluster_set or [])])
    settings: dict[str, Any] = {} if seed is None else {"seed": seed}
    if storage is not None:
        set_ = [*(set_ or []), f"training.storage={json.dumps(storage)}"]
        _look_into_storage(storage, runs, resume, name)
    if deterministic:
        set_ = [*(set_ or []), "training.deterministic=true"]
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
        # Fail before a folder is made if the algorithm does not support this environment.
        make_agent(resolved, spec_of(resolved))
        folder = new_run_folder(runs, name, resolved, may_restart=resume == "auto")
    else:
        folder = require_run(save.path if resume in (None, "auto") else Path(resume))
        as_algorithm = [] if algorithm is None else [f"algorithm={algorithm}"]
        resolved = load_config(config_path(save), overrides=[*as_algorithm, *(set_ or [])])
        refuse_other_algorithm(save, resolved)
        make_agent(resolved, spec_of(resolved))
        fixed = {
            "--preset": preset,
            "--world": world,
            "--env": env,
            "--config": config,
            "--seed": seed,
            "--name": name if resume != "auto" else None,
            "--mode": mode if mode != "standard" else None,
        }
        ignored = [option for option, value in fixed.items() if value is not None]
        if ignored:
            say(f"a resumed run keeps its own settings: {', '.join(ignored)} ignored")
    logs.set_up("json" if log_format == "json" else "text", folder.name)
    again = _again(
        {
            "--resume": folder,
            "--local": local,
            "--address": address,
            "--simulators": simulators,
            "--cluster": cluster_set,
            "--debug-nans": debug_nans,
            "--publish": publish,
            "--registry": registry if publish or page else None,
            "--page": page,
            "--page-port": page_port if page else None,
            "--log-format": log_format if log_format != "text" else None,
        }
    )
    began = f"run folder: {folder}" + (f", continuing {save.path.name}" if save else "")
    if resume == "auto" and save is None:
        say(_nothing_to_continue(runs, name, resolved.training.storage))
    with (
        hold(folder, WAIT_S if resume == "auto" else 0.0) as lease,
        terminal.outlived(folder / terminal.LOG),
    ):
        if page:
            from rlcar.cli.watch import start_page

            start_page(folder, page_port, registry)
        say(began)
        outcome = run_training(resolved, folder, save)
        if outcome.interrupted:
            say(f"stopped; continue with: {again}")
            sys.exit(130)
        _report(folder, resolved, outcome.summary, lease)
        announce(folder)


def _again(options: dict[str, Any]) -> str:
    """The command that continues a training: True stands for a flag, a list for several options."""
    words: list[object] = []
    for option, given in options.items():
        for one in given if isinstance(given, list) else [given]:
            if one is True:
                words.append(option)
            elif one is not None and one is not False:
                words += [option, one]
    return command("train", *words)


def _training(cluster_settings: list[str] | None) -> Callable[[Any, Path, Any], Any]:
    """The loop in one process, or with settings on Ray; refuses these before anything begins."""
    if cluster_settings is None:
        from rlcar.training.loop import train

        return train
    from cluster.config import make_cluster_config, parse_cluster_settings

    cluster = make_cluster_config(**parse_cluster_settings(cluster_settings))
    train_on_ray = import_cluster("training.loop").train
    return lambda config, folder, save: train_on_ray(config, cluster, folder, save)


def _report(folder: Path, config: Any, summary: Any, lease: Any) -> None:
    """Evaluates the best policy; Ctrl-C after the training costs this report alone."""
    from rlcar.devices.selection import everything_on_cpu
    from rlcar.evaluation.run_report import evaluate_run
    from rlcar.runs.metrics import ProgressLine
    from rlcar.system import heartbeat

    line = ProgressLine(config.training.env_steps)
    line.update(int(summary["env_steps"]), {})
    lease.listen(line.tell)  # who follows the log sees that this is alive
    try:
        with everything_on_cpu(), heartbeat.stage("reporting"):
            evaluate_run(folder, summary=summary)
    except KeyboardInterrupt:
        say(f"the training is complete; its report is made by: {command('evaluate', folder)}")
        sys.exit(130)


def _nothing_to_continue(runs: Path, name: str | None, storage: str) -> str:
    """Says that `--resume auto` begins something new, and where it has looked."""
    what = f"a run {name}" if name is not None else "a run with a checkpoint"
    where = f"below {runs}"
    if storage:
        from rlcar.storage.runs import Storage

        there = ", ".join(sorted(run.name for run in Storage(storage).runs())) or "no runs"
        where += f" or in {storage} (which holds {there})"
    return f"--resume auto found nothing to continue: there is not {what} {where}; a new run begins"


def _refuse_together(local: bool, debug_nans: bool, is_clustered: bool, log_format: str) -> None:
    if local and is_clustered:
        raise UserError(
            "--local runs in one process: leave out --address, --simulators and --cluster"
        )
    if debug_nans and not local:
        raise UserError("--debug-nans looks into one process: add --local")
    if log_format not in ("text", "json"):
        raise UserError(f"--log-format {log_format!r}: there are text and json")


def _publisher(location: str) -> Callable[[Path], None]:
    """Opens the registry before the training, so that a wrong one is noticed in time."""
    from rlcar.registry import Registry

    models = Registry(location)

    def publish(folder: Path) -> None:
        say(f"published: version {models.publish(folder).number} of {models.place}")

    return publish


def _published_nowhere(folder: Path) -> None:
    pass


def _look_into_storage(url: str, runs: Path, resume: str | None, name: str | None) -> None:
    """Fetches what `--resume` means when it is newer there, or refuses a name that is taken."""
    from rlcar.runs.run import find_save
    from rlcar.storage.runs import Storage

    storage = Storage(url)
    if resume is not None:
        try:
            fetched = storage.fetch_newer(runs, resume, name)
        except StorageError as error:
            # What is here is enough to go on with, and the storage may come back.
            is_here = find_save(runs, resume, name) if resume == "auto" else Path(resume).exists()
            if not is_here:
                raise
            say(f"warning: {error}; going on with what is here")
            return
        if fetched is not None:
            say(f"fetched from the storage: {fetched.path}")
        return
    storage.check()
    if name is not None and storage.runs(name):
        again = command("train", "--resume", runs / name, "--storage", url)
        raise UserError(
            f"{url} already holds a run {name}: continue it with: {again}; or choose another --name"
        )
