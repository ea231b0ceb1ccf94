"""`rlcar train`: trains in one process or on Ray, then reports."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlcar.cli import train_options as options
from rlcar.cli.curriculum import Choice as CurriculumChoice
from rlcar.cli.curriculum import train_curriculum
from rlcar.cli.next_commands import next_commands
from rlcar.cli.shared import (
    MODELS,
    RUNS,
    RayAddress,
    RoadWidth,
    RunsFolder,
    Settings,
    TrackScale,
    Where,
    chosen_tracks,
    cluster_imports,
    say,
)
from rlcar.cli.train_plan import (
    Choice,
    Plan,
    is_complete,
    look_into_storage,
    make_plan,
    nothing_to_continue,
    open_registry,
)
from rlcar.cli.train_watching import watched
from rlcar.config import Config
from rlcar.devices import compile_cache
from rlcar.errors import UserError, command
from rlcar.system import logs, terminal

if TYPE_CHECKING:
    from rlcar.registry import Registry
    from rlcar.runs.run import Watcher
    from rlcar.storage.checkpoint import Save
    from rlcar.system.lease import Lease
    from rlcar.training.loop import TrainingOutcome

    Train = Callable[[Config, Path, Save | None, Sequence[Watcher]], TrainingOutcome]


def train(
    preset: options.Preset = None,
    algorithm: options.Algorithm = None,
    world: options.World = None,
    tracks: options.Tracks = None,
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
    env: options.Environment = None,
    data: options.Data = None,
    mode: options.Mode = "standard",
    curriculum: options.Curriculum = None,
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
    if mode == "curriculum":
        train_curriculum(
            CurriculumChoice(curriculum, list(set_ or []), seed, runs, name, resume),
            launch,
            {
                "--preset": preset, "--algorithm": algorithm, "--world": world, "--env": env,
                "--data": data, "--config": config, "--from": from_, "--storage": storage,
                "--deterministic": deterministic, "--tracks": tracks,
            },
        )  # fmt: skip
        return
    if curriculum is not None:
        raise UserError("--curriculum needs --mode curriculum")
    _refuse_attempt(runs, resume, name)
    models = open_registry(registry) if publish else None
    run_training = _training_loop(launch)
    overrides = list(set_ or [])
    if storage is not None:
        overrides.append(f"training.storage={json.dumps(storage)}")
        look_into_storage(storage, runs, resume, name)
    if deterministic:
        overrides.append("training.deterministic=true")
    choice = Choice(
        preset, algorithm, world, env, data, from_, registry, mode, config, overrides, seed,
        chosen_tracks(tracks, track_scale, road_width),
    )  # fmt: skip
    plan = make_plan(choice, runs, name, resume)
    logs.set_up("json" if log_format == "json" else "text", plan.folder.name)
    if resume == "auto" and is_complete(plan, models):
        # A supervisor starts its services again after a reboot; there is nothing left to do then.
        say(f"run folder: {plan.folder}: the training is complete; nothing to continue")
        return
    if resume == "auto" and plan.save is None:
        say(nothing_to_continue(runs, name, plan.config.training.storage))
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


def _refuse_attempt(runs: Path, resume: str | None, name: str | None) -> None:
    from rlcar.runs.folders import refuse_attempt

    refuse_attempt(runs, resume, name)


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


def _run(
    plan: Plan,
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
        watched(plan.config, folder, launch) as watchers,
    ):
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
            from rlcar.envs.compiled import COMPILED

            say(
                next_commands(
                    folder,
                    launch.registry,
                    number,
                    is_race=plan.config.is_race,
                    has_environment=plan.config.data.has_environment,
                    can_film=plan.config.environment.id in COMPILED,
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
