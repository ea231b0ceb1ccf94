"""`rlcar league`: versions and runs race against each other and get ratings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rlcar.cli.shared import (
    MODELS,
    RoadWidth,
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
    from rlcar.league.run import League

_STOPS = "stopping after the present pair; the same command goes on there"


def league(
    drivers: Annotated[
        list[str] | None,
        typer.Argument(help="Two or more drivers: versions (number or alias) or run folders."),
    ] = None,
    world: Annotated[
        str, typer.Option(help="World of the races, e.g. classic (default: the first driver's).")
    ] = "",
    tracks: TracksOption = None,
    track_scale: TrackScale = None,
    road_width: RoadWidth = None,
    laps: Annotated[int, number(1, 20, help="Number of laps of a race.")] = 1,
    seed: Annotated[int, number(0, 2**31 - 1, help="Seed of the races and the ratings.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder in which league.json and league.png are written.")
    ] = Path("league"),
    registry: Where = MODELS,
) -> None:
    """Races every two drivers on unseen tracks from both places of the grid, and rates them.

    Ctrl-C keeps what is finished; the same command drives the rest.
    """
    prepare_jax_on_cpu()
    from rlcar.config import make_race_config
    from rlcar.evaluation.laps import track_seeds
    from rlcar.evaluation.run_report import REPORT_SET
    from rlcar.league.entrants import open_entrants
    from rlcar.league.run import League, run_league
    from rlcar.system.interrupt import StopRequest
    from rlcar.track import set_name

    choice = chosen_tracks(tracks, track_scale, road_width)
    entrants = open_entrants(drivers or [], registry)
    base = make_race_config(world) if world else entrants[0].config.race
    race, track_set = choice.apply(base, REPORT_SET)
    seeds = track_seeds(track_set, race.track)
    named = set_name(track_set, race.track)
    chosen = League(entrants, race, named, seeds, laps, seed)
    with terminal.outlived(), StopRequest(_STOPS) as stop:
        table = run_league(chosen, out, lambda: bool(stop), _announce)
    if table is None:
        raise typer.Exit(130)
    _print(table, chosen, out)


def _announce(done: int, total: int, pair: str) -> None:
    console.print(f"pair {done + 1} of {total}: {escape(pair)}", highlight=False)


def _print(table: dict[str, Any], league: "League", out: Path) -> None:
    from rlcar.league.run import PICTURE, RESULT
    from rlcar.system.console import make_console
    from rlcar.system.tables import make_table

    columns = ("rating", "races won", "finished", "crashes", "contacts", "overtakes")
    rows = make_table("driver", *columns, right=columns)
    for driver in table["drivers"]:
        low, high = driver["rating_interval"]
        rows.add_row(
            escape(driver["name"]),
            f"{driver['rating']:.1f} ({low:.1f} to {high:.1f})",
            f"{100 * driver['share_won']:.1f} %",
            f"{100 * driver['finish_rate']:.1f} %",
            *(str(driver[name]) for name in ("crashes", "contacts", "overtakes")),
        )
    printed = make_console()
    printed.print(rows)
    races = 2 * len(league.seeds)
    printed.print(
        f"{races} races a pair, on {len(league.seeds)} {league.track_set} tracks; written: "
        f"{out / RESULT} and {out / PICTURE}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
