"""`rlcar train --mode curriculum`: trains in stages, each with thresholds to pass."""

import contextlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlcar.cli import train_options as options
from rlcar.cli.shared import cluster_imports, say
from rlcar.cli.train_plan import open_registry, published_version
from rlcar.cli.train_watching import watched
from rlcar.errors import UserError, command
from rlcar.system import logs, terminal

if TYPE_CHECKING:
    from cluster.config import ClusterConfig
    from rlcar.config import Config
    from rlcar.registry import Registry
    from rlcar.runs.run import EvaluationListener
    from rlcar.storage.checkpoint import Save
    from rlcar.training.curriculum.record import Record
    from rlcar.training.curriculum.runner import TrainRun
    from rlcar.training.curriculum.settings import Curriculum
    from rlcar.training.loop import TrainingOutcome

# Of a curriculum that ended without passing its stages. A supervisor must not start it again, as
# nothing would change; 1 is the code of a crash, and 2 that of a user's mistake.
FAILED_EXIT_CODE = 3


class Choice(NamedTuple):
    """The options that choose a curriculum."""

    curriculum: str | None
    overrides: list[str]
    seed: int | None
    runs: Path
    name: str | None
    resume: str | None


def train_curriculum(choice: Choice, launch: options.Launch, others: Mapping[str, object]) -> None:
    """Begins or continues a curriculum.

    Exits with 130 if it is asked to stop before its end, and with `FAILED_EXIT_CODE` if a stage is
    not passed. `others` are options that only a single training has; any that is given is refused.
    """
    from rlcar.devices.selection import everything_on_cpu
    from rlcar.system.lease import WAIT_S, hold
    from rlcar.training.curriculum.machine import Phase
    from rlcar.training.curriculum.report import write_report
    from rlcar.training.curriculum.runner import CurriculumRun

    if others.get("--storage"):
        raise UserError(
            "--storage mirrors a single run, and a curriculum could not be continued from there "
            "without its journal: leave --storage out, unset RLCAR_STORAGE, and keep --runs on a "
            "disk that outlives this host"
        )
    given = [option for option, value in others.items() if value]
    if given:
        raise UserError(
            f"--mode curriculum takes the settings of its stages from its file: leave out "
            f"{', '.join(given)}, or write them under base or set in the file"
        )
    folder, is_new, named = _find(choice)
    models = open_registry(launch.registry) if launch.publish else None
    logs.set_up("json" if launch.log_format == "json" else "text", folder.name)
    if named is not None and is_new:
        _check(named, launch)
    with contextlib.ExitStack() as stack:
        lease = stack.enter_context(hold(folder, WAIT_S if choice.resume == "auto" else 0.0))
        lease.begin()
        stack.enter_context(terminal.outlived(folder / terminal.LOG))
        record = _open(folder, is_new, named, lease.check)
        if record.state.phase in (Phase.DONE, Phase.FAIL):
            write_report(record)  # the process that ended it may have been killed before
            _conclude(record, launch, models)
            return
        say(f"curriculum folder: {folder}{'' if is_new else ', continuing'}")
        run = CurriculumRun(record, _training(launch, stack))
        stack.enter_context(everything_on_cpu())
        if not run.run():
            say(f"stopped; continue with: {_resume_command(folder, launch)}")
            sys.exit(130)
        _conclude(record, launch, models)


def _find(choice: Choice) -> "tuple[Path, bool, Curriculum | None]":
    """Returns the folder, whether the curriculum is new, and the curriculum that was named."""
    from rlcar.runs.folders import from_here, require_plain_name
    from rlcar.training.curriculum.record import STATE_FILE, require_begun
    from rlcar.training.curriculum.settings import load_curriculum, shipped

    named = None
    if choice.curriculum is not None:
        named = load_curriculum(choice.curriculum, choice.overrides, choice.seed)
    elif choice.overrides or choice.seed is not None:
        raise UserError(
            "--set and --seed change a curriculum: name it with --curriculum, as at its beginning"
        )
    name = choice.name or (named.name if named is not None else None)
    if choice.resume not in (None, "auto"):
        folder = from_here(Path(str(choice.resume)).resolve())
        require_begun(folder)
        return folder, False, named
    if choice.resume == "auto" and name is None:
        raise UserError("--resume auto continues a curriculum by its name: add --name, or name the "
                        "curriculum with --curriculum")  # fmt: skip
    if name is not None:
        require_plain_name(name)
        folder = choice.runs / name
        has_begun = (folder / STATE_FILE).exists()
        if has_begun and choice.resume is None:
            raise UserError(
                f"{folder} already holds a curriculum: continue it with: "
                f"{command('train', '--mode', 'curriculum', '--resume', folder)}; or choose "
                "another --name"
            )
        if not has_begun and (folder / "run.json").exists():
            raise UserError(f"{folder} holds an ordinary run: choose another --name")
        if has_begun or named is not None:
            return folder, not has_begun, named
    raise UserError(
        "--mode curriculum needs --curriculum: a YAML file, or one of "
        f"{', '.join(shipped())}; or --resume with the folder of one that has begun"
    )


def _check(curriculum: "Curriculum", launch: options.Launch) -> None:
    """Raises UserError for a curriculum that cannot work, before its folder exists."""
    from rlcar.training.curriculum.checks import check_curriculum

    check_curriculum(curriculum)
    if launch.local:
        return
    with cluster_imports(", or train with --local"):
        from cluster.training.loop import check_supported
    cluster = _cluster_config(launch)
    for index, stage in enumerate(curriculum.stages):
        try:
            check_supported(curriculum.config(index, 1), cluster)
        except UserError as error:
            raise UserError(f"stage {stage.name!r}: {error}") from error


def _open(
    folder: Path, is_new: bool, named: "Curriculum | None", require_lease: Callable[[], None]
) -> "Record":
    from rlcar.training.curriculum.record import begin_record, open_record

    if not is_new:
        return open_record(folder, named, require_lease)
    assert named is not None
    return begin_record(folder, named, require_lease)


def _cluster_config(launch: options.Launch) -> "ClusterConfig":
    from cluster.config import make_cluster_config, parse_cluster_settings

    return make_cluster_config(**parse_cluster_settings(launch.all_cluster_settings()))


def _training(launch: options.Launch, stack: contextlib.ExitStack) -> "TrainRun":
    """Returns the loop for one attempt; on Ray the runtime is kept between attempts."""
    if launch.local:
        from rlcar.training.loop import train

        def train_here(
            config: "Config",
            folder: Path,
            resume: "Save | None",
            on_evaluated: "EvaluationListener",
        ) -> "TrainingOutcome":
            with watched(config, folder, launch) as watchers:
                return train(config, folder, resume, on_evaluated, watchers=watchers)

        return train_here
    cluster = _cluster_config(launch)
    with cluster_imports(", or train with --local"):
        from cluster.runtime import ray_runtime
        from cluster.training.loop import train as train_on_ray

    stack.enter_context(ray_runtime(cluster))

    def train_there(
        config: "Config", folder: Path, resume: "Save | None", on_evaluated: "EvaluationListener"
    ) -> "TrainingOutcome":
        with watched(config, folder, launch) as watchers:
            return train_on_ray(config, cluster, folder, resume, on_evaluated, watchers=watchers)

    return train_there


def _conclude(record: "Record", launch: options.Launch, models: "Registry | None") -> None:
    """Says how the curriculum ended, and publishes the policy that has passed.

    Exits with `FAILED_EXIT_CODE` if a stage was not passed.
    """
    from rlcar.training.curriculum.machine import Evaluated, Phase
    from rlcar.training.curriculum.record import run_folder
    from rlcar.training.curriculum.report import PICTURE, attempts_of

    state, stages = record.state, record.curriculum.stages
    env_steps = sum(attempt.env_steps for attempt in attempts_of(record))
    say(f"report: {record.folder / 'report.json'}, picture: {record.folder / PICTURE}")
    if state.phase is Phase.FAIL:
        say(
            f"the curriculum failed in stage {stages[state.stage].name} after {env_steps:,} env "
            f"steps, {sum(state.runs)} attempts and {state.regressions} regressions"
            f"{'; nothing is published' if models is not None else ''}"
        )
        sys.exit(FAILED_EXIT_CODE)
    say(
        f"all {len(stages)} stages are passed, after {env_steps:,} env steps, {sum(state.runs)} "
        f"attempts and {state.regressions} regressions"
    )
    confirmed = record.details_of_run(state.run, Evaluated) or {}
    # The best policy of the run is another one: that of a training evaluation, in few episodes.
    save = run_folder(record.folder, state.run) / "checkpoints" / confirmed["checkpoint"]
    if models is not None:
        _publish(save, confirmed["env_steps"], models, launch.registry)
        return
    say(f"evaluate the policy that has passed with: {command('evaluate', save)}")
    say(f"publish it with: {command('models', 'publish', save, '--registry', launch.registry)}")


def _publish(save: Path, env_steps: int, models: "Registry", location: str) -> None:
    """Evaluates and publishes the checkpoint that has passed, unless a version is of it already.

    A supervisor may start a curriculum again that has ended, or was killed before it published.
    """
    from rlcar.devices.selection import everything_on_cpu
    from rlcar.evaluation.run_report import evaluate_run
    from rlcar.system import heartbeat

    number = published_version(models, save.parent.parent, save.name, env_steps)
    if number is None:
        try:
            with everything_on_cpu(), heartbeat.stage("reporting"):
                evaluate_run(save)  # a version carries the figures of its policy
        except KeyboardInterrupt:
            again = command("models", "publish", save, "--registry", location)
            say(f"the curriculum is complete; its policy is published by: {again}")
            sys.exit(130)
        number = models.publish(save).number
    say(f"published: version {number} of {models.place}, the policy of {save}")


def _resume_command(folder: Path, launch: options.Launch) -> str:
    """Returns the command line that continues a curriculum in the same way."""
    again = launch.resume_command(folder)
    return again.replace("rlcar train ", "rlcar train --mode curriculum ", 1)
