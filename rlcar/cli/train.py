"""`rlcar train`: resolves the settings, trains in one process or on Ray, reports."""

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlcar.cli import train_options as options
from rlcar.cli.next_commands import next_commands
from rlcar.cli.shared import (
    MODELS,
    RUNS,
    RayAddress,
    RunsFolder,
    Settings,
    Where,
    cluster_imports,
    say,
)
from rlcar.config import Config
from rlcar.devices import compile_cache
from rlcar.errors import StorageError, UserError, command
from rlcar.system import logs, terminal

if TYPE_CHECKING:
    from rlcar.registry import Registry
    from rlcar.runs.run import Watcher
    from rlcar.storage.checkpoint import Save
    from rlcar.system.lease import Lease
    from rlcar.training.loop import TrainingOutcome

    Train = Callable[[Config, Path, Save | None, Sequence[Watcher]], TrainingOutcome]


class _Choice(NamedTuple):
    """The options that choose the settings of a new run."""

    preset: str | None
    algorithm: str | None
    world: str | None
    env: str | None
    data: Path | None
    source: str | None  # the run, checkpoint or version of `registry` to begin with
    registry: str
    mode: str
    config: Path | None
    overrides: list[str]  # each `section.name=value`
    seed: int | None


class _Plan(NamedTuple):
    """What to train, and where."""

    config: Config
    folder: Path
    save: "Save | None"  # the checkpoint to continue; None begins a new run


def train(
    preset: options.Preset = None,
    algorithm: options.Algorithm = None,
    world: options.World = None,
    env: options.Environment = None,
    data: options.Data = None,
    mode: options.Mode = "standard",
    config: options.ConfigFile = None,
    set_: Settings = None,
    seed: options.Seed = None,
    deterministic: options.Deterministic = False,
    name: options.Name = None,
    runs: RunsFolder = RUNS,
    from_: options.From = None,
    resume: options.Resume = None,
    storage: options.Storage = None,
    local: options.Local = False,
    debug_nans: options.DebugNans = False,
    address: RayAddress = None,
    simulators: options.Simulators = None,
    page: options.Page = False,
    page_port: options.PagePort = 8001,
    metrics_port: options.MetricsPort = None,
    log_format: options.LogFormat = "text",
    cluster_set: options.ClusterSettings = None,
    publish: options.Publish = False,
    registry: Where = MODELS,
) -> None:
    """Trains a policy, then drives the test tracks with it and writes the report."""
    launch = options.Launch(
        local, address, simulators, cluster_set or [], debug_nans, publish, registry, page,
        page_port, log_format, metrics_port,
    )  # fmt: skip
    launch.refuse_contradictions()
    _prepare_jax(local, debug_nans)
    models = _open_registry(registry) if publish else None
    run_training = _training_loop(launch)
    overrides = list(set_ or [])
    if storage is not None:
        overrides.append(f"training.storage={json.dumps(storage)}")
        _look_into_storage(storage, runs, resume, name)
    if deterministic:
        overrides.append("training.deterministic=true")
    choice = _Choice(
        preset, algorithm, world, env, data, from_, registry, mode, config, overrides, seed
    )
    plan = _plan(choice, runs, name, resume)
    logs.set_up("json" if log_format == "json" else "text", plan.folder.name)
    if resume == "auto" and _is_complete(plan, models):
        # A supervisor starts its services again after a reboot; there is nothing left to do then.
        say(f"run folder: {plan.folder}: the training is complete; nothing to continue")
        return
    if resume == "auto" and plan.save is None:
        say(_nothing_to_continue(runs, name, plan.config.training.storage))
    _run(plan, launch, run_training, models, may_wait=resume == "auto")


def _prepare_jax(local: bool, debug_nans: bool) -> None:
    """Sets what JAX reads when it is imported."""
    if debug_nans:
        os.environ["JAX_DEBUG_NANS"] = "true"
    if not local:
        # The learner actor chooses its own device. This process only evaluates, and must leave the
        # accelerator to it.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    compile_cache.prepare_jax()


def _open_registry(location: str) -> "Registry":
    """Opens the registry before the training, so that a wrong address is noticed in time."""
    from rlcar.registry import Registry

    return Registry(location)


def _training_loop(launch: options.Launch) -> "Train":
    """Returns the loop in one process or on Ray; refuses wrong settings of the latter."""
    if launch.local:
        from rlcar.training.loop import train

        return lambda config, folder, save, watchers: train(config, folder, save, watchers=watchers)
    from cluster.config import make_cluster_config, parse_cluster_settings

    cluster = make_cluster_config(**parse_cluster_settings(launch.all_cluster_settings()))
    with cluster_imports(", or train with --local"):
        from cluster.training.loop import train as train_on_ray

    return lambda config, folder, save, watchers: train_on_ray(
        config, cluster, folder, save, watchers=watchers
    )


def _look_into_storage(url: str, runs: Path, resume: str | None, name: str | None) -> None:
    """Fetches what `--resume` means if the storage is ahead, or refuses a name that is taken."""
    from rlcar.runs.run import find_save
    from rlcar.storage.runs import Storage

    storage = Storage(url)
    if resume is not None:
        try:
            fetched = storage.fetch_newer(runs, resume, name)
        except StorageError as error:
            # The local copy is enough to continue, and the storage may come back.
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


def _plan(choice: _Choice, runs: Path, name: str | None, resume: str | None) -> _Plan:
    """Resolves the settings, and makes or finds the run's folder."""
    from rlcar.runs.run import find_save

    save = None if resume is None else find_save(runs, resume, name)
    if save is None:
        return _new_run(choice, runs, name, may_restart=resume == "auto")
    return _resumed_run(choice, save, name, resume)


def _new_run(choice: _Choice, runs: Path, name: str | None, *, may_restart: bool) -> _Plan:
    from rlcar.runs.run import new_run_folder

    if choice.source is not None:
        from rlcar.cli.train_from import source_of

        config = _continued_config(choice, source_of(choice.source, runs, choice.registry))
    else:
        config = _new_config(choice)
    _require_support(config)  # before a folder is made
    return _Plan(config, new_run_folder(runs, name, config, may_restart=may_restart), None)


def _continued_config(choice: _Choice, source: Path) -> Config:
    """Returns the settings of another training that goes on in a new run."""
    from rlcar.cli.train_from import continued_config

    given = {
        "--preset": choice.preset,
        "--world": choice.world,
        "--env": choice.env,
        "--data": choice.data,
        "--config": choice.config,
        "--algorithm": choice.algorithm,
        "--mode": choice.mode if choice.mode != "standard" else None,
    }
    refused = [option for option, value in given.items() if value is not None]
    if refused:
        raise UserError(
            f"--from takes these from the run that it continues: leave out {', '.join(refused)}"
        )
    return continued_config(source, choice.overrides, choice.seed)


def _new_config(choice: _Choice) -> Config:
    from rlcar.config import make_config

    world, overrides = choice.world, choice.overrides
    if choice.data is not None:
        from rlcar.cli.train_data import settings_of_data

        world, of_data = settings_of_data(choice.data, world, choice.env)
        overrides = [*of_data, *overrides]
    return make_config(
        choice.preset,
        choice.mode,
        choice.config,
        overrides,
        world=world,
        algorithm=choice.algorithm,
        environment=choice.env,
        **({} if choice.seed is None else {"seed": choice.seed}),
    )


def _resumed_run(choice: _Choice, save: "Save", name: str | None, resume: str | None) -> _Plan:
    from rlcar.config import load_config
    from rlcar.runs.run import require_run
    from rlcar.storage.checkpoint import config_path
    from rlcar.training.trainer import refuse_other_algorithm

    is_automatic = resume in (None, "auto")
    folder = require_run(save.path if is_automatic else Path(str(resume)))
    as_algorithm = [] if choice.algorithm is None else [f"algorithm={choice.algorithm}"]
    config = load_config(config_path(save), overrides=[*as_algorithm, *choice.overrides])
    refuse_other_algorithm(save, config)
    _require_support(config)
    fixed = {
        "--preset": choice.preset,
        "--world": choice.world,
        "--env": choice.env,
        "--data": choice.data,
        "--from": choice.source,
        "--config": choice.config,
        "--seed": choice.seed,
        "--name": name if resume != "auto" else None,
        "--mode": choice.mode if choice.mode != "standard" else None,
    }
    ignored = [option for option, value in fixed.items() if value is not None]
    if ignored:
        say(f"a resumed run keeps its own settings: {', '.join(ignored)} ignored")
    return _Plan(config, folder, save)


def _is_complete(plan: _Plan, models: "Registry | None") -> bool:
    """Whether a run was trained to its end, reported and, with `--publish`, published."""
    from rlcar.system.regular_file import read_regular

    if plan.save is None or plan.save.env_steps < plan.config.training.env_steps:
        return False
    try:
        report = json.loads(read_regular(plan.folder / "report.json"))
        # `rlcar evaluate` alone writes a report without the figures of a complete training.
        is_reported = report["env_steps"] >= plan.config.training.env_steps
        published = {
            "run": plan.folder.resolve().name,
            "checkpoint": report["checkpoint"],
            "env_steps": report["checkpoint_env_steps"],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return False  # never reported, or damaged: report again
    if not is_reported or models is None:
        return is_reported
    lineages = (version.metadata["lineage"] for version in models.versions())
    return any(published.items() <= lineage.items() for lineage in lineages)


def _require_support(config: Config) -> None:
    """Fails early if the algorithm does not support this environment or this data."""
    from rlcar.agents import make_agent
    from rlcar.evaluation.environment import open_data, require_source, spec_of

    require_source(config)
    if config.data.folder:
        open_data(config)
    make_agent(config, spec_of(config))


def _nothing_to_continue(runs: Path, name: str | None, storage: str) -> str:
    """Says that `--resume auto` begins something new, and where it has looked."""
    what = f"a run {name}" if name is not None else "a run with a checkpoint"
    where = f"below {runs}"
    if storage:
        from rlcar.storage.runs import Storage

        there = ", ".join(sorted(run.name for run in Storage(storage).runs())) or "no runs"
        where += f" or in {storage} (which holds {there})"
    return f"--resume auto found nothing to continue: there is not {what} {where}; a new run begins"


def _run(
    plan: _Plan,
    launch: options.Launch,
    run_training: "Train",
    models: "Registry | None",
    *,
    may_wait: bool,
) -> None:
    """Holds the run's lease while it trains, reports and publishes.

    `may_wait` waits for the lease of a lost host to expire.
    """
    from rlcar.system.lease import WAIT_S, hold

    folder = plan.folder
    with (
        hold(folder, WAIT_S if may_wait else 0.0) as lease,
        terminal.outlived(folder / terminal.LOG),
        _exporting(plan, launch.metrics_port) as watchers,
    ):
        if launch.page:
            from rlcar.cli.watch import start_page

            start_page(folder, launch.page_port, launch.registry)
        continuing = "" if plan.save is None else f", continuing {plan.save.path.name}"
        say(f"run folder: {folder}{continuing}")
        outcome = run_training(plan.config, folder, plan.save, watchers)
        if outcome.interrupted:
            say(_how_to_continue(folder, launch))
            sys.exit(130)
        _report(folder, plan.config, outcome.summary, lease)
        number = None
        if models is not None:
            number = models.publish(folder).number
            say(f"published: version {number} of {models.place}")
        if not logs.are_json():
            say(
                next_commands(
                    folder,
                    launch.registry,
                    number,
                    is_race=plan.config.is_race,
                    has_environment=plan.config.data.has_environment,
                )
            )


def _how_to_continue(folder: Path, launch: options.Launch) -> str:
    """Says what to do after Ctrl-C or SIGTERM."""
    from rlcar.storage import checkpoint

    if checkpoint.latest(folder / "checkpoints") is None:
        again = shlex.join(
            ["--resume", "auto", "--name", folder.name, "--runs", str(folder.parent)]
        )
        return f"stopped before the first train step: begin again with this command and {again}"
    return f"stopped; continue with: {launch.resume_command(folder)}"


@contextlib.contextmanager
def _exporting(plan: _Plan, port: int | None) -> "Iterator[Sequence[Watcher]]":
    """Exports the run's metrics at a port, if there is one."""
    if port is None:
        yield ()
        return
    from rlcar.runs.exporter import exporting

    with exporting(plan.config, plan.folder, port) as watcher:
        yield (watcher,)


def _report(
    folder: Path, config: Config, summary: Mapping[str, float | None], lease: "Lease"
) -> None:
    """Evaluates the best policy; Ctrl-C after the training costs this report alone."""
    from rlcar.devices.selection import everything_on_cpu
    from rlcar.evaluation.run_report import evaluate_run
    from rlcar.runs.metrics import ProgressLine
    from rlcar.system import heartbeat

    line = ProgressLine(config.training.env_steps)
    line.update(int(summary["env_steps"] or 0), {})
    lease.listen(line.report)  # whoever follows the log sees that the process is alive
    try:
        with everything_on_cpu(), heartbeat.stage("reporting"):
            evaluate_run(folder, summary=summary)
    except KeyboardInterrupt:
        say(f"the training is complete; its report is made by: {command('evaluate', folder)}")
        sys.exit(130)
