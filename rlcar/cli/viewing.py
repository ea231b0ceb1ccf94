"""The verbs that look at a run: evaluate, profile, dream, play, render."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from rlcar.cli.shared import Settings, console, number
from rlcar.devices import compile_cache
from rlcar.errors import UserError
from rlcar.system import terminal


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or one checkpoint of it.")],
    tracks: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
) -> None:
    """Drives unseen tracks with a run's best policy and writes report.json and pictures."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    compile_cache.prepare_jax()
    from rlcar.evaluation.run_report import evaluate_run

    with terminal.outlived():
        evaluate_run(run, tracks)


def profile(
    what: Annotated[str, typer.Argument(help="train (the whole loop) or sim (driving alone).")],
    preset: Annotated[str | None, typer.Option(help="As of rlcar train.")] = None,
    world: Annotated[str | None, typer.Option(help="As of rlcar train.")] = None,
    mode: Annotated[str, typer.Option(help="standard or test.")] = "standard",
    set_: Settings = None,
    blocks: Annotated[int, number(1, 1000, help="Blocks to look at.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the trace.")] = Path("profile"),
) -> None:
    """Says where the time goes, and leaves a trace for Perfetto or TensorBoard."""
    compile_cache.prepare_jax()
    from rlcar.config import make_config
    from rlcar.devices.selection import everything_on_cpu
    from rlcar.training.profiler import print_profile, profile_sim, profile_train

    if what not in ("train", "sim"):
        raise UserError(f"cannot profile {what!r}: there are train and sim")
    config = make_config(preset, mode, overrides=set_ or [], world=world)
    run_profile = profile_train if what == "train" else profile_sim
    with everything_on_cpu():  # as `train --local` has it: the learner alone goes to a card
        print_profile(run_profile(config, out, blocks))


def dream(
    run: Annotated[Path, typer.Argument(help="A run folder, or one checkpoint of it.")],
    tracks: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    horizon: Annotated[int, number(1, 200, help="Steps of a dream.")] = 30,
) -> None:
    """Lets a run's world model dream on, beside what happened: dream.json, .png and .gif."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    compile_cache.prepare_jax()
    from rlcar.runs.run import require_run
    from rlcar.viewing.dream import dream_run, print_dream

    print_dream(dream_run(run, tracks, horizon))
    console.print(f"written: {require_run(run)}/dream.json, dream.png, dream.gif", highlight=False)


def play(
    run: Annotated[
        Path | None, typer.Argument(help="A run whose policy the space bar puts at the wheel.")
    ] = None,
    world: Annotated[
        str | None, typer.Option(help="classic, grand-prix or a stage (default: the run's).")
    ] = None,
    track: Annotated[
        int | None, number(0, 2**31 - 1, help="A track's seed (default: test tracks).")
    ] = None,
) -> None:
    """Opens a window to drive by hand: arrows, R restarts, N next track, space: policy, Q quits."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    compile_cache.prepare_jax()
    from rlcar.track import TRACK_SETS
    from rlcar.viewing.play import play as play_window

    race, policies = _race_and_policies([] if run is None else [run], world)
    tracks = list(TRACK_SETS["test"]) if track is None else [track]
    played = play_window(race, tracks, policies[0] if policies else None)
    best = "" if played.best_lap_steps is None else f", the best in {played.best_lap_steps} steps"
    console.print(f"laps: {played.laps}{best}; crashes: {played.crashes}", highlight=False)


def render(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Runs: the first drives, the others are ghosts.")
    ] = None,
    out: Annotated[Path, typer.Option(help="A .gif, .mp4 or .png to write.")] = Path("lap.gif"),
    world: Annotated[
        str | None, typer.Option(help="classic, grand-prix or a stage (default: the first run's).")
    ] = None,
    track: Annotated[int, number(0, 2**31 - 1, help="The track's seed.")] = 20_000,
    sheet: Annotated[
        str | None, typer.Option(help="Draws all tracks of this set instead, e.g. circuits.")
    ] = None,
) -> None:
    """Films a lap, or draws a sheet of tracks."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    compile_cache.prepare_jax()
    from rlcar.evaluation.laps import track_seeds
    from rlcar.viewing.render import render_lap, render_tracks, require_format

    require_format(out)
    if not runs and sheet is None:
        raise UserError("nothing to draw: name a run, or a set of tracks with --sheet")
    if sheet is not None:
        seeds = track_seeds(sheet)[:64]
        race, _ = _race_and_policies(runs or [], world)
        render_tracks(out, race, seeds, columns=4 if len(seeds) < 17 else 8)
    else:
        race, policies = _race_and_policies(runs or [], world)
        console.print(render_lap(out, policies, race, track), highlight=False)
    console.print(f"written: {out}", highlight=False)


def _race_and_policies(runs: list[Path], world: str | None) -> tuple[Any, list[Any]]:
    """Returns the race of `world`, else of the first run, else classic, and each run's policy."""
    from rlcar.config import make_race_config
    from rlcar.viewing.car_policy import load_car_policy

    loaded = [load_car_policy(run) for run in runs]
    if world is not None or not loaded:
        return make_race_config(world or "classic"), [policy for _, policy in loaded]
    return loaded[0][0].race, [policy for _, policy in loaded]
