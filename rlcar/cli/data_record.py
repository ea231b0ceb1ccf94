"""`rlcar data record`: drives behaviour policies and records their episodes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import (
    MODELS,
    RoadWidth,
    Settings,
    TrackScale,
    TracksOption,
    Where,
    chosen_tracks,
    console,
    number,
    prepare_jax_on_cpu,
)
from rlcar.system import terminal

if TYPE_CHECKING:
    from rlcar.config import Config
    from rlcar.datasets.description import Source

_STOPS = "stopping: writing every transition so far; continue with --resume"


def record(
    folder: Annotated[Path, typer.Argument(help="Folder of the data set to write.")],
    drivers: Annotated[
        list[str],
        typer.Argument(
            help="Drivers as NAME, NAME@NOISE or NAME@NOISE=SHARE. NAME is full_throttle, "
            "longest_ray, careful, sees_the_track, random, the folder of a run, or a published "
            "version. NOISE is a standard deviation such as 0.2, a range over the cars such as "
            "0.1-0.4, or explore; SHARE is a part of the transitions."
        ),
    ],
    transitions: Annotated[
        int, number(1, 10**10, help="Number of transitions of the whole data set.")
    ] = 100_000,
    world: Annotated[
        str | None,
        typer.Option(
            help="World to drive in: classic, grand-prix or a stage (default: that of the first "
            "run or version, else classic)."
        ),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            help="Gymnasium environment to record in place of the race, e.g. Pendulum-v1."
        ),
    ] = None,
    settings: Settings = None,
    tracks: TracksOption = None,
    track_count: Annotated[
        int | None, number(1, 65_536, help="Number of tracks of the set to use (default: all).")
    ] = None,
    cars: Annotated[
        int | None,
        number(1, 65_536, help="Number of environments at once (default: by the transitions)."),
    ] = None,
    seed: Annotated[int, number(0, 2**31 - 1, help="Seed of tracks, starts and noise.")] = 0,
    registry: Where = MODELS,
    resume: Annotated[
        bool, typer.Option("--resume", help="Adds to the data set in the folder.")
    ] = False,
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
) -> None:
    """Records episodes of drivers in the race or in a Gymnasium environment.

    Ctrl-C ends the recording and keeps every transition; --resume continues it.
    """
    prepare_jax_on_cpu()
    from rlcar.cli import behaviours as named
    from rlcar.cli.data_progress import TransitionProgress
    from rlcar.datasets.behaviour import Behaviour
    from rlcar.datasets.description import World, describe
    from rlcar.datasets.recording import (
        EnvironmentRecorder,
        RaceRecorder,
        Recorder,
        cars_for,
        require_shares,
    )
    from rlcar.datasets.recording import record as record_episodes
    from rlcar.datasets.writer import DatasetWriter
    from rlcar.evaluation.environment import spec_of
    from rlcar.evaluation.laps import track_seeds
    from rlcar.system.interrupt import StopRequest
    from rlcar.track import set_name

    asked = [named.parse_driver(text) for text in drivers]
    learned = [named.load_learned(one.name, registry) for one in asked]
    config = named.choose_world(learned, world, env, settings or [])
    race, track_set = chosen_tracks(tracks, track_scale, road_width).apply(config.race, "train")
    config = config.model_copy(update={"race": race})
    spec = spec_of(config)
    config = named.with_frames(config, spec)
    seeds = track_seeds(track_set, race.track)[:track_count] if config.is_race else ()
    behaviours = named.make_behaviours(asked, learned, config, spec, seeds)
    require_shares(behaviours)
    together = cars_for(transitions, cars, config.is_race)

    def make_recorder(behaviour: Behaviour, count: int, lane_seed: int) -> Recorder:
        if config.is_race:
            return RaceRecorder(config.race, seeds, behaviour, count, lane_seed)
        return EnvironmentRecorder(config.environment, spec, behaviour, count, lane_seed)

    source = _source(drivers, config, set_name(track_set, race.track), len(seeds), seed)
    with (
        terminal.outlived(),
        StopRequest(_STOPS) as stop,
        DatasetWriter(
            folder, describe(World.of_config(config), spec), source, resume=resume
        ) as out,
        TransitionProgress("recording", transitions, out.transitions) as progress,
    ):
        record_episodes(
            out,
            behaviours,
            make_recorder,
            transitions=transitions,
            cars=together,
            seed=seed,
            should_stop=lambda: bool(stop),
            on_progress=progress.update,
        )
    state = "stopped with" if stop else "recorded:"
    console.print(
        f"{state} {out.episodes:,} episodes with {out.transitions:,} transitions in {folder}",
        highlight=False,
        markup=False,
    )


def _source(
    drivers: list[str], config: "Config", tracks: str, track_count: int, seed: int
) -> "Source":
    from rlcar.datasets.description import Source
    from rlcar.system.provenance import provenance

    known = provenance(seed)
    about = {
        "drivers": drivers,
        "seed": seed,
        "commit": known["commit"],
        "created": known["created"],
        "rlcar": known["versions"]["rlcar"],
    }
    about |= {"tracks": tracks, "track_count": track_count} if config.is_race else {}
    return Source(kind="recording", about=about)
