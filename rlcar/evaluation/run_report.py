"""Evaluates a run's best policy on unseen tracks: the report, its pictures and its figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from rlcar.agents import Agent, make_agent
from rlcar.config import Config, load_config
from rlcar.config.race import RaceConfig
from rlcar.envs.compiled import COMPILED
from rlcar.errors import CheckpointError, ConfigError, UserError
from rlcar.evaluation.chosen_tracks import ChosenTracks
from rlcar.evaluation.drivers import DRIVERS, REFERENCE, make_reference
from rlcar.evaluation.environment import make_evaluation, spec_of
from rlcar.evaluation.episode_report import EPISODES, draw_report, figures_of, report_episodes
from rlcar.evaluation.episode_report import print_table as print_episode_table
from rlcar.evaluation.json_file import write_json
from rlcar.evaluation.lap_reference import REFERENCE_FILE, make_lap_reference, reference_tree
from rlcar.evaluation.laps import Laps, drive, report, track_seeds, write_report
from rlcar.evaluation.pictures import draw_learning_curve
from rlcar.evaluation.table import print_table
from rlcar.runs.metrics_file import read_metrics
from rlcar.runs.run import is_same_folder, require_run, writing
from rlcar.sim import SPEC
from rlcar.storage import checkpoint
from rlcar.system.console import make_console
from rlcar.system.regular_file import read_regular
from rlcar.track import make_tracks, set_name
from rlcar.types import Params

# Neither training nor the choice of the best policy sees these tracks.
REPORT_SET = "test"
FIGURES = (
    "lap_rate",
    "over_bound_pct",
    "env_steps",
    "train_seconds",
    "env_steps_to_90",
    "seconds_to_90",
)


def evaluate_run(
    path: Path,
    tracks: ChosenTracks | str | None = None,
    summary: Mapping[str, float | None] | None = None,
    *,
    episodes: int | None = None,
) -> Path:
    """Drives a run's best policy, or the checkpoint that `path` names; returns the report's path.

    `tracks` chooses other tracks of the race than the run's own ones or the test tracks.

    `episodes` is the number of episodes in a compiled environment; the race has a lap for each
    track, and other environments have a fixed number of episodes.

    `summary` holds the figures of the training itself (`FIGURES[2:]`). Without it, the report keeps
    those of an earlier report.
    """
    folder = require_run(path)
    config = load_config(folder / "config.json")
    if config.environment.id in COMPILED:
        return _evaluate_compiled(folder, path, config, summary, episodes or EPISODES)
    if episodes is not None:
        raise UserError(
            f"--episodes {episodes}: {config.world_label} has no choice of episodes; leave it out"
        )
    if not config.is_race:
        return _evaluate_environment(folder, path, config, summary)
    race, track_set = ChosenTracks.of(tracks).apply(config.race, REPORT_SET)
    return _evaluate_race(folder, path, config, race, track_set, summary)


def _evaluate_race(
    folder: Path,
    path: Path,
    config: Config,
    race: RaceConfig,
    track_set: str,
    summary: Mapping[str, float | None] | None,
) -> Path:
    seeds = track_seeds(track_set, race.track)
    agent = make_agent(config, SPEC)
    save, params = load_policy(folder, path, agent, config.seed)
    tracks = make_tracks(seeds, race.track)
    drivers = {**DRIVERS, REFERENCE: make_reference(seeds, race)}
    with _showing_progress("drivers") as progress:
        task = progress.add_task("", total=1 + len(drivers))
        own = drive(agent.policy, params, race, seeds, keeps_steps=True)
        laps = {config.preset: own}
        for name, policy in drivers.items():
            progress.advance(task)
            laps[name] = drive(policy, None, race, seeds)
    name = set_name(track_set, race.track)
    result = report(laps, tracks, race, track_set=name)
    result |= _earlier_summary(folder) if summary is None else summary
    result |= {"checkpoint": save.path.name, "checkpoint_env_steps": save.env_steps}
    result |= {"provenance": checkpoint.provenance(config.seed)}
    rows = read_metrics(folder / "metrics.jsonl")
    with writing(folder):
        write_json(folder / REFERENCE_FILE, _reference(own) | {"checkpoint": save.path.name})
        written = write_report(folder, result, own, tracks, rows)
    console = make_console()
    print_table(result, console)
    where = f" ({len(tracks)} {name} tracks)"
    _print_figures(console, folder, result, FIGURES, where)
    return written


def _reference(laps: Laps) -> dict[str, Any]:
    """Returns the distributions of what the policy observed, did and earned, if there are any."""
    driven = laps.driven
    assert driven is not None
    try:
        reference = make_lap_reference(*driven, laps.steps, laps.lap_time_steps > 0)
    except ConfigError:
        return {}
    return reference_tree(reference)


def _evaluate_environment(
    folder: Path, path: Path, config: Config, summary: Mapping[str, float | None] | None
) -> Path:
    agent = make_agent(config, spec_of(config))
    save, params = load_policy(folder, path, agent, config.seed)
    with _showing_progress("episodes") as progress:
        task = progress.add_task("", total=1.0)
        evaluate = make_evaluation(
            config,
            agent.policy,
            on_share=lambda share: progress.update(task, completed=share),
        )
        evaluation = evaluate(params)
    assert evaluation is not None  # nothing stops it
    result: dict[str, Any] = {"environment": config.environment.id or "unknown"}
    result |= {name.partition("/")[2]: value for name, value in evaluation.metrics.items()}
    result |= _earlier_summary(folder) if summary is None else summary
    result |= {"checkpoint": save.path.name, "checkpoint_env_steps": save.env_steps}
    result |= {"provenance": checkpoint.provenance(config.seed)}
    written = folder / "report.json"
    with writing(folder):
        draw_learning_curve(folder / "learning_curve.png", read_metrics(folder / "metrics.jsonl"))
        write_json(written, result)
    figures = ("episode_reward", "episode_steps", "env_steps", "train_seconds")
    _print_figures(make_console(), folder, result, figures)
    return written


def _evaluate_compiled(
    folder: Path,
    path: Path,
    config: Config,
    summary: Mapping[str, float | None] | None,
    episodes: int,
) -> Path:
    agent = make_agent(config, spec_of(config))
    save, params = load_policy(folder, path, agent, config.seed)
    with _showing_progress("policies") as progress:
        task = progress.add_task("", total=1.0)
        result, driven = report_episodes(
            config,
            agent,
            params,
            episodes,
            on_share=lambda share: progress.update(task, completed=share),
        )
    result |= _earlier_summary(folder) if summary is None else summary
    result |= {"checkpoint": save.path.name, "checkpoint_env_steps": save.env_steps}
    result |= {"provenance": checkpoint.provenance(config.seed)}
    written = folder / "report.json"
    with writing(folder):
        draw_learning_curve(folder / "learning_curve.png", read_metrics(folder / "metrics.jsonl"))
        draw_report(folder, config, result, driven)
        write_json(written, result)
    console = make_console()
    print_episode_table(result, console)
    _print_figures(console, folder, result, (*figures_of(config), "env_steps", "train_seconds"))
    return written


def _showing_progress(what: str) -> Progress:
    console = make_console(stderr=True)
    columns = BarColumn(bar_width=20), TaskProgressColumn(), f"of the {what}", TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print_figures(
    console: Console, folder: Path, result: Mapping[str, Any], names: Sequence[str], where: str = ""
) -> None:
    console.print(f"report and pictures{where}: {folder}", highlight=False, soft_wrap=True)
    for name in names:
        value = result.get(name)
        text = "none" if value is None else f"{value:.6g}"
        console.print(f"figure {name}={text}", highlight=False)


def load_policy(
    folder: Path, path: Path, agent: Agent, seed: int
) -> tuple[checkpoint.Save, Params]:
    """Loads the policy of the checkpoint `path`.

    If `path` is the run itself, it loads the best policy, or the newest before any evaluation.
    """
    state = jax.eval_shape(lambda: agent.learner.init(seed))
    like = agent.learner.policy_params(state)
    if is_same_folder(path, folder):
        save = checkpoint.latest(folder / "best") or checkpoint.latest(folder / "checkpoints")
    else:
        save = checkpoint.open_save(path)
    if save is None:
        raise CheckpointError(f"{folder} holds no complete checkpoint yet: train it first")
    return save, checkpoint.load(save, like, part="policy")


def _earlier_summary(folder: Path) -> dict[str, float | None]:
    try:
        earlier = json.loads(read_regular(folder / "report.json"))
    except (OSError, ValueError):
        return {}
    if not isinstance(earlier, dict):
        return {}
    return {name: earlier[name] for name in FIGURES[2:] if name in earlier}
