"""`rlcar tracks`: checks tracks of CSV files, and writes tracks as such files."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlcar.cli.shared import (
    RoadWidth,
    TrackScale,
    chosen_tracks,
    console,
    number,
    prepare_jax_on_cpu,
)
from rlcar.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlcar.config.race import RaceConfig
    from rlcar.evaluation.chosen_tracks import ChosenTracks
    from rlcar.track import Track

app = typer.Typer(help="Checks tracks of your own in CSV files, and writes tracks as such files.")

World = Annotated[
    str, typer.Option(help="World of the race: classic, grand-prix, or a stage grand-prix-1.")
]
Points = Annotated[
    int | None,
    number(16, 400, help="Number of points of each track (default: race.track.points of --world)."),
]
_COLUMNS = ("track", "length [px]", "width [px]", "direction", "fastest lap [steps]")


@app.command()
def check(
    files: Annotated[Path, typer.Argument(help="CSV file, or folder of CSV files.")],
    world: World = "classic",
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
    points: Points = None,
    out: Annotated[
        Path | None, typer.Option(help="PNG file in which the tracks are drawn.")
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="File to write with the tracks as settings, for --config of other commands and "
            "for jobs of campaigns."
        ),
    ] = None,
) -> None:
    """Reads tracks as `rlcar train --tracks` does, and shows what they become.

    The fastest lap is a lower bound: no car of this world can be faster.
    """
    prepare_jax_on_cpu()
    chosen = chosen_tracks(str(files), track_scale, road_width)
    tracks, race = _tracks(chosen, world, points)
    _print(tracks, race)
    if settings is not None:
        _write_settings(settings, race)
        console.print(f"written: {settings}", highlight=False)
    if out is not None:
        from rlcar.viewing.render import render_tracks

        render_tracks(out, race, [track.seed for track in tracks], columns=min(4, len(tracks)))
        console.print(f"written: {out}", highlight=False)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write, one CSV file a track.")],
    tracks: Annotated[
        str,
        typer.Option(
            help="Tracks to write: a set (train, validation, test or circuits), or a CSV file or a "
            "folder of CSV files."
        ),
    ] = "circuits",
    world: World = "classic",
    count: Annotated[int, number(1, 10_000, help="Largest number of tracks to write.")] = 64,
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
    points: Points = None,
) -> None:
    """Writes tracks as CSV files in px, which `--tracks` reads again as the same tracks."""
    prepare_jax_on_cpu()
    from rlcar.system.durable import explaining_write_errors
    from rlcar.track.own.export import file_name, write_csv

    chosen = chosen_tracks(tracks, track_scale, road_width)
    made = _tracks(chosen, world, points, count)[0]
    with explaining_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        taken = next((name for name in map(file_name, made) if (folder / name).exists()), None)
        if taken is not None:
            raise UserError(f"{folder / taken} exists already: remove it, or name another folder")
        for track in made:
            write_csv(folder / file_name(track), track)
    console.print(f"written: {len(made)} tracks in {folder}", highlight=False, markup=False)


def _tracks(
    chosen: "ChosenTracks", world: str, points: int | None, count: int | None = None
) -> "tuple[list[Track], RaceConfig]":
    """Returns the chosen tracks, at most `count` of them, and the race on them."""
    from rlcar.config import make_race_config
    from rlcar.track import make_tracks, set_seeds

    changes = {} if points is None else {"track": {"points": points}}
    race, track_set = chosen.apply(make_race_config(world, **changes), "test")
    return make_tracks(set_seeds(track_set, race.track)[:count], race.track), race


def _write_settings(path: Path, race: "RaceConfig") -> None:
    """Writes the tracks as a config file; JSON is YAML too."""
    from rlcar.system.durable import explaining_write_errors, replace_text

    track = race.track.model_dump(include={"points", "own"}, mode="json")
    with explaining_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps({"race": {"track": track}}, indent=1) + "\n")


def _print(tracks: "Sequence[Track]", race: "RaceConfig") -> None:
    """Prints a table with a row for each track."""
    import numpy as np
    from rich.table import Table

    from rlcar.system.console import make_console
    from rlcar.track.bound import lap_time_bound_steps

    table = Table(*_COLUMNS)
    steps = lap_time_bound_steps(tracks, race.vehicle.top_speed_px_per_step)
    for track, bound in zip(tracks, steps, strict=True):
        widths_px = 2 * (
            np.array([track.half_width_px])
            if track.half_widths_px is None
            else track.half_widths_px
        )
        is_left_hand = track.borders_px[0] is track.inner_px
        table.add_row(
            track.name or str(track.seed),
            f"{track.length_px:.0f}",
            f"{widths_px.min():.0f} to {widths_px.max():.0f}",
            "counter-clockwise" if is_left_hand else "clockwise",
            str(bound),
        )
    make_console().print(table)
