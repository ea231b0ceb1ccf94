"""The plan of a training: its settings, its folder and the checkpoint that it continues."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlcar.cli.shared import say
from rlcar.config import Config
from rlcar.errors import StorageError, UserError, command

if TYPE_CHECKING:
    from rlcar.evaluation.chosen_tracks import ChosenTracks
    from rlcar.registry import Registry
    from rlcar.storage.checkpoint import Save


class Choice(NamedTuple):
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
    tracks: "ChosenTracks | None" = None  # of files


class Plan(NamedTuple):
    """What to train, and where."""

    config: Config
    folder: Path
    save: "Save | None"  # the checkpoint to continue; None begins a new run


def make_plan(choice: Choice, runs: Path, name: str | None, resume: str | None) -> Plan:
    """Resolves the settings, and makes or finds the run's folder."""
    from rlcar.runs.run import find_save

    if choice.mode == "eval":
        run = "RUN" if resume in (None, "auto") else str(resume)
        raise UserError(
            "--mode eval trains nothing; evaluate a run, on unseen tracks or episodes, with: "
            f"{command('evaluate', run)}"
        )
    save = None if resume is None else find_save(runs, resume, name)
    if save is None:
        return _new_run(choice, runs, name, may_restart=resume == "auto")
    return _resumed_run(choice, save, name, resume)


def look_into_storage(url: str, runs: Path, resume: str | None, name: str | None) -> None:
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


def nothing_to_continue(runs: Path, name: str | None, storage: str) -> str:
    """Says that `--resume auto` begins something new, and where it has looked."""
    what = f"a run {name}" if name is not None else "a run with a checkpoint"
    where = f"below {runs}"
    if storage:
        from rlcar.storage.runs import Storage

        there = ", ".join(sorted(run.name for run in Storage(storage).runs())) or "no runs"
        where += f" or in {storage} (which holds {there})"
    return f"--resume auto found nothing to continue: there is not {what} {where}; a new run begins"


def is_complete(plan: Plan, models: "Registry | None") -> bool:
    """Whether a run was trained to its end, reported and, with `--publish`, published."""
    from rlcar.runs.completion import is_saved_at_its_end
    from rlcar.system.regular_file import read_regular

    save, training = plan.save, plan.config.training
    if save is None or not is_saved_at_its_end(training, save):
        return False
    try:
        report = json.loads(read_regular(plan.folder / "report.json"))
        # `rlcar evaluate` alone writes a report without the figures of a complete training.
        is_reported = report["env_steps"] >= min(save.env_steps, training.env_steps)
        name, env_steps = report["checkpoint"], report["checkpoint_env_steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return False  # never reported, or damaged: report again
    if not is_reported or models is None:
        return is_reported
    return published_version(models, plan.folder, name, env_steps) is not None


def open_registry(location: str) -> "Registry":
    """Opens the registry before the training, so that a wrong address is noticed in time."""
    from rlcar.registry import Registry

    return Registry(location)


def published_version(
    models: "Registry", folder: Path, checkpoint: str, env_steps: int
) -> int | None:
    """Returns the number of the version that a checkpoint of a run was published as, if any."""
    origin = {"run": folder.resolve().name, "checkpoint": checkpoint, "env_steps": env_steps}
    lineages = {version.number: version.metadata["lineage"] for version in models.versions()}
    found = (number for number, one in lineages.items() if origin.items() <= one.items())
    return next(found, None)


def _new_run(choice: Choice, runs: Path, name: str | None, *, may_restart: bool) -> Plan:
    from rlcar.runs.run import new_run_folder

    if choice.source is not None:
        from rlcar.offline.fine_tuning import source_of

        config = _continued_config(choice, source_of(choice.source, runs, choice.registry))
    else:
        config = _new_config(choice)
    config = _with_tracks(config, choice)
    _require_support(config)  # before a folder is made
    return Plan(config, new_run_folder(runs, name, config, may_restart=may_restart), None)


def _continued_config(choice: Choice, source: Path) -> Config:
    """Returns the settings of another training that goes on in a new run."""
    from rlcar.offline.fine_tuning import continued_config

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


def _new_config(choice: Choice) -> Config:
    from rlcar.config import make_config

    world, overrides = choice.world, choice.overrides
    if choice.data is not None:
        from rlcar.offline.data_settings import settings_of_data

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


def _with_tracks(config: Config, choice: Choice) -> Config:
    """Returns the settings with the tracks of `--tracks`, which replace those of the settings."""
    if choice.tracks is None:
        return config
    choice.tracks.refuse_without_files()
    tracks = choice.tracks.tracks
    if tracks is None:
        return config
    if choice.data is not None or not config.is_race:
        where = choice.data if choice.data is not None else config.world_label
        raise UserError(
            f"--tracks {tracks} is for a training that drives in the race, and {where} gives the "
            "environment: leave it out"
        )
    return config.model_copy(update={"race": choice.tracks.with_files(config.race)})


def _resumed_run(choice: Choice, save: "Save", name: str | None, resume: str | None) -> Plan:
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
        "--tracks": None if choice.tracks is None else choice.tracks.tracks,
        "--name": name if resume != "auto" else None,
        "--mode": choice.mode if choice.mode != "standard" else None,
    }
    ignored = [option for option, value in fixed.items() if value is not None]
    if ignored:
        say(f"a resumed run keeps its own settings: {', '.join(ignored)} ignored")
    return Plan(config, folder, save)


def _require_support(config: Config) -> None:
    """Fails early if the algorithm does not support this environment or this data."""
    from rlcar.agents import make_agent
    from rlcar.evaluation.environment import open_data, require_source, spec_of

    require_source(config)
    if config.data.folder:
        open_data(config)
    make_agent(config, spec_of(config))
