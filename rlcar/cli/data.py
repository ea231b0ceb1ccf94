"""`rlcar data …`: records, checks, converts and combines data sets."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rlcar.cli import data_convert, data_record
from rlcar.cli.shared import AsJson, console, number
from rlcar.errors import DatasetError
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

if TYPE_CHECKING:
    from rlcar.datasets import Dataset

app = typer.Typer(
    no_args_is_help=True, help="Records, checks, converts and combines data sets of episodes."
)
app.command()(data_record.record)

Folder = Annotated[Path, typer.Argument(help="Folder of a data set.")]


@app.command()
def info(folder: Folder, as_json: AsJson = False) -> None:
    """Shows what a data set holds: sizes, returns, drivers and observations."""
    from rlcar.cli.data_progress import TransitionProgress
    from rlcar.datasets import Dataset
    from rlcar.datasets.summary import summarise

    data = Dataset.open(folder)
    with TransitionProgress("reading", data.transitions) as progress:
        figures = summarise(data, progress.update)
    if as_json:
        typer.echo(json.dumps(figures, indent=2, allow_nan=False))
        return
    out = make_console()
    out.print(
        escape(
            f"{figures['world']}: {figures['episodes']:,} episodes, {figures['transitions']:,} "
            f"transitions, {figures['parts']} parts, {figures['bytes'] / 1e6:,.1f} MB"
        ),
        highlight=False,
    )
    out.print(f"fingerprint {figures['fingerprint']}", highlight=False, soft_wrap=True)
    out.print(_drivers(figures))
    if figures["observations"]:
        out.print(_observations(figures))


@app.command()
def validate(folder: Folder, as_json: AsJson = False) -> None:
    """Checks every number of a data set; names file, episode and step of each fault."""
    from rlcar.cli.data_progress import TransitionProgress
    from rlcar.datasets.description import read_description
    from rlcar.datasets.validation import validate as problems_of

    total = read_description(folder).transitions
    with TransitionProgress("checking", total) as progress:
        problems = list(problems_of(folder, progress.update))
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "problems": problems}, indent=2))
    else:
        for problem in problems:
            typer.echo(problem)
        if not problems:
            console.print(
                f"sound: {total:,} transitions in {folder}", highlight=False, markup=False
            )
    if problems:
        raise typer.Exit(1)


@app.command()
def coverage(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option(help="PNG file to write (default: coverage.png in the current folder)."),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            help="Two observations, separated by a comma, e.g. speed,ray_+0_deg (default for the "
            "race: speed and bend)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draws over which speeds and bends the data is thin, and counts the thin cells."""
    from rlcar.cli.data_progress import TransitionProgress
    from rlcar.datasets import Dataset
    from rlcar.datasets.coverage import draw, measure

    names = None
    if axes is not None:
        first, comma, second = axes.partition(",")
        if not comma or "," in second:
            raise DatasetError(f"--axes {axes!r}: name two observations, separated by a comma")
        names = first.strip(), second.strip()
    data = Dataset.open(folder)
    with TransitionProgress("reading", data.transitions) as progress:
        found = measure(data, names, progress.update)
    path = out or Path("coverage.png")
    draw(path, found, f"{folder.name}: {data.transitions:,} transitions of {data.world.label}")
    figures = found.figures()
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    console.print(
        f"{figures['visited_cells']} of {figures['cells']} cells visited, "
        f"{figures['thin_cells']} of them with fewer than {figures['thin_below_transitions']} "
        f"transitions; picture: {path}",
        highlight=False,
        markup=False,
    )


@app.command()
def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Folders of data sets of the same world; the last one is written."),
    ],
) -> None:
    """Writes the episodes of several data sets into a new one: rlcar data merge A B … NEW."""
    from rlcar.cli.data_progress import TransitionProgress
    from rlcar.datasets import Dataset
    from rlcar.datasets.combine import merge as merge_data

    *sources, target = folders
    if not sources:
        raise DatasetError("name at least one data set, and then the folder to write")
    datasets = [Dataset.open(folder) for folder in sources]
    total = sum(data.transitions for data in datasets)
    with TransitionProgress("merging", total) as progress:
        _say_written(merge_data(datasets, target, progress.update))


@app.command()
def split(
    folder: Folder,
    parts: Annotated[
        list[str], typer.Argument(help="New folders with their shares, as FOLDER=SHARE.")
    ],
    seed: Annotated[int, number(0, 2**31 - 1, help="Seed of the choice of episodes.")] = 0,
) -> None:
    """Deals the episodes out to new data sets: rlcar data split ALL train=0.9 test=0.1."""
    from rlcar.cli.data_progress import TransitionProgress
    from rlcar.datasets import Dataset
    from rlcar.datasets.combine import split as split_data

    folders, shares = [], []
    for text in parts:
        name, _, share_text = text.rpartition("=")
        try:
            share = float(share_text)
        except ValueError:
            share = float("nan")
        if not name or not 0 < share < float("inf"):
            raise DatasetError(
                f"{text!r} is not FOLDER=SHARE with a positive number: give e.g. train=0.9"
            )
        if Path(name) in folders:
            raise DatasetError(f"{name} is named twice: name each new folder once")
        folders.append(Path(name))
        shares.append(share)
    data = Dataset.open(folder)
    with TransitionProgress("splitting", data.transitions) as progress:
        written = split_data(data, folders, shares, seed, progress.update)
    for each in written:
        _say_written(each)


app.command("import")(data_convert.import_)
app.command()(data_convert.export)


def _say_written(data: "Dataset") -> None:
    data_convert.say_written(data)


def _drivers(figures: dict[str, Any]) -> Any:
    table = make_table(
        *("driver", "episodes", "share", "steps", "return", "range", "ended", "known"),
        right=("episodes", "share", "steps", "return", "range", "ended", "known"),
        caption="ended: by a crash or a finish; known: episodes with action probabilities",
        caption_justify="left",
    )
    for row in [*figures["drivers"], figures | {"policy": "all", "source": "model"}]:
        by = "" if row["source"] in ("model", "") else f", {row['source']}"
        table.add_row(
            escape((row["policy"] or "unknown") + by),
            f"{row['episodes']:,}",
            f"{100 * row['share']:.0f} %",
            f"{row['mean_steps']:.0f}",
            f"{row['mean_return']:.1f}",
            f"{row['lowest_return']:.0f} to {row['highest_return']:.0f}",
            f"{100 * row['terminal_rate']:.0f} %",
            f"{100 * row['known_probability_rate']:.0f} %",
        )
    return table


def _observations(figures: dict[str, Any]) -> Any:
    table = make_table(
        *("observation", "unit", "range", "mean", "deviation"), right=("mean", "deviation")
    )
    for row in figures["observations"]:
        bounds = [
            ("-∞", "∞")[end] if row[key] is None else f"{row[key]:g}"
            for end, key in enumerate(("low", "high"))
        ]
        table.add_row(
            escape(row["name"]),
            escape(row["unit"]),
            " to ".join(bounds),
            f"{row['mean']:.4g}",
            f"{row['standard_deviation']:.4g}",
        )
    return table
