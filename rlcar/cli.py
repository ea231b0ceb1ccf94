"""`rlcar <verb>`: parses, then one call."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rlcar.compile_cache import keep_compiled_code
from rlcar.errors import UserError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
_console = Console(stderr=True, soft_wrap=True)

RUNS = Path("runs")


def main() -> None:
    """Runs a verb; a user's mistake is one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    keep_compiled_code()
    try:
        app()
    except UserError as error:
        _console.print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False)
        sys.exit(2)


@app.callback()
def _about() -> None:
    """Cars that learn to drive inside a world model."""


Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, e.g. training.env_steps=100000.")
]


@app.command()
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
    set_: Set = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same run.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder below --runs.")] = None,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = RUNS,
    resume: Annotated[
        str | None, typer.Option(help="A run or a checkpoint to continue, or auto.")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="One process, no Ray.")] = False,
    debug_nans: Annotated[
        bool, typer.Option("--debug-nans", help="Stops at the operation that makes a NaN; slow.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, host:port or auto.")
    ] = None,
    simulators: Annotated[
        int | None, typer.Option(help="Simulator processes (default: the free cores).")
    ] = None,
) -> None:
    """Trains a policy, then drives unseen tracks with it and writes the report."""
    if local and (address is not None or simulators is not None):
        raise UserError("--local runs in one process: leave out --address and --simulators")
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
        given = {
            "--preset": preset,
            "--algorithm": algorithm,
            "--world": world,
            "--env": env,
            "--config": config,
            "--seed": seed,
        }
        ignored = [option for option, value in given.items() if value is not None]
        if ignored:
            _console.print(f"a resumed run keeps its own settings: {', '.join(ignored)} ignored")
    began = f"run folder: {folder}" + (f", continuing {save.path.name}" if save else "")
    if local:
        from rlcar.train import train as run_training

        _console.print(began, markup=False)
        outcome = run_training(resolved, folder, save)
    else:
        from cluster.config import make_cluster_config

        cluster = make_cluster_config(address=address, simulators=simulators)
        run_cluster_training = _import_cluster_training()
        _console.print(began, markup=False)
        outcome = run_cluster_training(resolved, cluster, folder, save)
    if outcome.interrupted:
        _console.print(f"stopped; continue with: rlcar train --resume {folder}")
        sys.exit(130)
    evaluate_run(folder, resolved.training.evaluate_set, outcome.summary)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder, or one checkpoint of it.")],
    tracks: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
) -> None:
    """Drives unseen tracks with a run's best policy and writes report.json and pictures."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from rlcar.evaluate_run import evaluate_run

    evaluate_run(run, tracks)


@app.command()
def profile(
    what: Annotated[str, typer.Argument(help="train (the whole loop) or sim (driving alone).")],
    preset: Annotated[str | None, typer.Option(help="As of rlcar train.")] = None,
    world: Annotated[str | None, typer.Option(help="As of rlcar train.")] = None,
    mode: Annotated[str, typer.Option(help="standard or test.")] = "standard",
    set_: Set = None,
    blocks: Annotated[int, typer.Option(min=1, max=1000, help="Blocks to look at.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder of the trace.")] = Path("profile"),
) -> None:
    """Says where the time goes, and leaves a trace for Perfetto or TensorBoard."""
    from rlcar.config import make_config
    from rlcar.profiler import print_profile, profile_sim, profile_train

    if what not in ("train", "sim"):
        raise UserError(f"cannot profile {what!r}: there are train and sim")
    config = make_config(preset, mode, overrides=set_ or [], world=world)
    run_profile = profile_train if what == "train" else profile_sim
    print_profile(run_profile(config, out, blocks))


@app.command()
def dream(
    run: Annotated[Path, typer.Argument(help="A run folder, or one checkpoint of it.")],
    tracks: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    horizon: Annotated[int, typer.Option(help="Steps of a dream.")] = 30,
) -> None:
    """Lets a run's world model dream on, beside what happened: dream.json, .png and .gif."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from rlcar.dream_run import dream_run, print_dream
    from rlcar.run import require_run

    print_dream(dream_run(run, tracks, horizon))
    _console.print(f"written: {require_run(run)}/dream.json, dream.png, dream.gif", highlight=False)


@app.command()
def play(
    run: Annotated[
        Path | None, typer.Argument(help="A run whose policy the space bar puts at the wheel.")
    ] = None,
    world: Annotated[
        str | None, typer.Option(help="classic, grand-prix or a stage (default: the run's).")
    ] = None,
    track: Annotated[
        int | None, typer.Option(help="A track's seed (default: test tracks).")
    ] = None,
) -> None:
    """Opens a window to drive by hand: arrows, R restarts, N next track, space: policy, Q quits."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from rlcar.play import play as play_window
    from rlcar.track import TRACK_SETS

    race, seats = _seats([] if run is None else [run], world)
    tracks = list(TRACK_SETS["test"]) if track is None else [track]
    played = play_window(race, tracks, seats[0] if seats else None)
    best = "" if played.best_lap_steps is None else f", the best in {played.best_lap_steps} steps"
    _console.print(f"laps: {played.laps}{best}; crashes: {played.crashes}", highlight=False)


@app.command()
def render(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Runs: the first drives, the others are ghosts.")
    ] = None,
    out: Annotated[Path, typer.Option(help="A .gif, .mp4 or .png to write.")] = Path("lap.gif"),
    world: Annotated[
        str | None, typer.Option(help="classic, grand-prix or a stage (default: the first run's).")
    ] = None,
    track: Annotated[int, typer.Option(help="The track's seed.")] = 20_000,
    sheet: Annotated[
        str | None, typer.Option(help="Draws all tracks of this set instead, e.g. circuits.")
    ] = None,
) -> None:
    """Films a lap, or draws a sheet of tracks."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from rlcar.evaluate import track_seeds
    from rlcar.render import render_lap, render_tracks, require_format

    require_format(out)
    if not runs and sheet is None:
        raise UserError("nothing to draw: name a run, or a set of tracks with --sheet")
    if sheet is not None:
        seeds = track_seeds(sheet)[:64]
        render_tracks(out, _seats(runs or [], world)[0], seeds, columns=4 if len(seeds) < 17 else 8)
    else:
        race, seats = _seats(runs or [], world)
        _console.print(render_lap(out, seats, race, track), highlight=False)
    _console.print(f"written: {out}", highlight=False)


def _seats(runs: list[Path], world: str | None) -> tuple[Any, list[Any]]:
    """Returns the race of `world`, else of the first run, else classic, and each run's policy."""
    from rlcar.config import make_race_config
    from rlcar.seat import load_seat

    loaded = [load_seat(run) for run in runs]
    if world is not None or not loaded:
        return make_race_config(world or "classic"), [seat for _, seat in loaded]
    return loaded[0][0].race, [seat for _, seat in loaded]


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


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
