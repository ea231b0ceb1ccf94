"""`rlcar dream`, `rlcar play` and `rlcar render`: look at what a policy does on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import (
    RoadWidth,
    RunOrCheckpoint,
    TrackScale,
    TracksOption,
    chosen_tracks,
    console,
    number,
    prepare_jax_on_cpu,
)
from rlcar.config.race import RaceConfig
from rlcar.errors import UserError

if TYPE_CHECKING:
    from rlcar.viewing.car_policy import CarPolicy

_SHEET_TRACKS = 64  # the most that a sheet shows
_EPISODES = 1_000_000
_SHEET_COLUMNS, _FEW_TRACKS, _FEW_COLUMNS = 8, 16, 4


def dream(
    run: RunOrCheckpoint,
    tracks: TracksOption = None,
    horizon: Annotated[int, number(1, 200, help="Number of steps to imagine.")] = 30,
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
) -> None:
    """Compares what a run's world model imagines with what happens: dream.json, .png and .gif."""
    prepare_jax_on_cpu()
    from rlcar.runs.run import require_run
    from rlcar.viewing.dream import dream_run, print_dream

    chosen = chosen_tracks(tracks, track_scale, road_width)
    print_dream(dream_run(run, chosen, horizon))
    console.print(f"written: {require_run(run)}/dream.json, dream.png, dream.gif", highlight=False)


def play(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run whose policy takes over when the space bar is pressed."),
    ] = None,
    world: Annotated[
        str | None,
        typer.Option(
            help="World to drive in: classic, grand-prix or a stage (default: the run's)."
        ),
    ] = None,
    track: Annotated[
        int | None,
        number(
            0,
            2**31 - 1,
            help="Seed of the track, or number of the own track, from 0 on (default: all tracks of "
            "--tracks, else the test tracks).",
        ),
    ] = None,
    tracks: TracksOption = None,
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
) -> None:
    """Opens a window to drive by hand: arrows, R restarts, N next track, space: policy, Q quits."""
    prepare_jax_on_cpu()
    from rlcar.track import set_seeds
    from rlcar.viewing.play import play as play_window

    race, policies = _load([] if run is None else [run], world)
    race, track_set = chosen_tracks(tracks, track_scale, road_width).apply(race, "test")
    seeds = list(set_seeds(track_set, race.track)) if track is None else [track]
    played = play_window(race, seeds, policies[0] if policies else None)
    best = "" if played.best_lap_steps is None else f", the best in {played.best_lap_steps} steps"
    console.print(f"laps: {played.laps}{best}; crashes: {played.crashes}", highlight=False)


def render(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Runs: the first drives, the others are ghosts.")
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write, ending in .gif, .mp4 or .png.")] = Path(
        "lap.gif"
    ),
    world: Annotated[
        str | None,
        typer.Option(
            help="World to drive in: classic, grand-prix or a stage (default: the first run's)."
        ),
    ] = None,
    track: Annotated[
        int,
        number(
            0,
            2**31 - 1,
            help="Seed of the track to drive, or number of the own track, from 0 on. In a compiled "
            "environment such as the lander, the number of the unseen episode, at most 1,000,000.",
        ),
    ] = 20_000,
    sheet: Annotated[
        str | None,
        typer.Option(
            help="Draws the tracks of this set, file or folder in place of a lap, e.g. circuits."
        ),
    ] = None,
    tracks: TracksOption = None,
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
) -> None:
    """Films a lap or an episode, or draws a sheet of tracks."""
    prepare_jax_on_cpu()
    from rlcar.track import set_seeds
    from rlcar.viewing.render import render_lap, render_tracks, require_format

    require_format(out)
    if not runs and sheet is None:
        raise UserError("nothing to draw: name a run, or a set of tracks with --sheet")
    if runs and _is_filmed_alone(runs, track):
        from rlcar.viewing.film import film_episode

        console.print(film_episode(out, runs[0], track), highlight=False)
        console.print(f"written: {out}", highlight=False)
        return
    if sheet is not None and tracks is not None:
        raise UserError(f"--sheet {sheet} and --tracks {tracks} both name tracks: leave out one")
    race, policies = _load(runs or [], world)
    race, track_set = chosen_tracks(sheet or tracks, track_scale, road_width).apply(race, "test")
    if sheet is not None:
        seeds = set_seeds(track_set, race.track)[:_SHEET_TRACKS]
        columns = _FEW_COLUMNS if len(seeds) <= _FEW_TRACKS else _SHEET_COLUMNS
        render_tracks(out, race, seeds, columns=columns)
    else:
        console.print(render_lap(out, policies, race, track), highlight=False)
    console.print(f"written: {out}", highlight=False)


def _is_filmed_alone(runs: list[Path], episode: int) -> bool:
    """Whether the first run is of a compiled environment, where one policy drives one episode."""
    from rlcar.viewing.film import is_compiled_run

    if not is_compiled_run(runs[0]):
        return False
    if len(runs) > 1:
        raise UserError(f"{runs[0]} is filmed alone: its environment shows one policy at a time")
    if episode > _EPISODES:
        raise UserError(f"--track {episode}: there are the episodes 0 to {_EPISODES:,}")
    return True


def _load(runs: list[Path], world: str | None) -> "tuple[RaceConfig, list[CarPolicy]]":
    """Returns the race of `world`, else of the first run, else classic, and each run's policy."""
    from rlcar.config import make_race_config
    from rlcar.viewing.car_policy import load_car_policy

    loaded = [load_car_policy(run) for run in runs]
    policies = [policy for _, policy in loaded]
    if world is not None or not loaded:
        return make_race_config(world or "classic"), policies
    return loaded[0][0].race, policies
