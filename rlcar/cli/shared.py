"""What several verbs share: the console for messages, and common options and arguments."""

import contextlib
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlcar.devices import compile_cache
from rlcar.errors import UserError
from rlcar.system import logs
from rlcar.system.console import make_console
from serve.settings import DEFAULT_TOKENS

if TYPE_CHECKING:
    from rlcar.evaluation.chosen_tracks import ChosenTracks

RUNS = Path("runs")
MODELS = "models"
TOKENS = DEFAULT_TOKENS
console = make_console(stderr=True, soft_wrap=True, emoji=False)

_LONGEST_SHOWN_DIGITS = 24
# Packages that `cluster` needs, as messages call them.
_CLUSTER_PACKAGES = {
    "ray": "Ray",
    "aiohttp": "aiohttp",
    "kubernetes": "the Kubernetes client",
    "optuna": "optuna",
    "plotly": "plotly",
}


def number(low: float, high: float, *names: str, help: str, hidden: bool = False) -> Any:
    """Declares an option that takes a number from `low` to `high`, both included.

    Every numeric option is declared with it, unless the code behind the option checks the number.
    Typer's own `min` and `max` let NaN pass, and a number without an upper end overflows later.
    """

    def check(param: typer.CallbackParam, value: float | None) -> float | None:
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            given = repr(value) if isinstance(value, float) else _shortened(value)
            name = param.opts[0]
            raise UserError(f"{name} {given}: give a number from {low:,} to {high:,}")
        return value

    return typer.Option(*names, help=f"{help} [{low:,} to {high:,}]", callback=check, hidden=hidden)


def _shortened(whole: int) -> str:
    digits = str(whole)
    if len(digits) <= _LONGEST_SHOWN_DIGITS:
        return digits
    return f"{digits[: _LONGEST_SHOWN_DIGITS // 2]}… ({len(digits)} digits)"


Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Changes one setting, e.g. training.env_steps=100000; repeatable."),
]

Where = Annotated[
    str,
    typer.Option(
        "--registry",
        envvar="RLCAR_REGISTRY",
        help="Model registry: a folder, or a URL such as s3://bucket/models.",
    ),
]

RunsFolder = Annotated[Path, typer.Option(help="Folder in which runs are kept.")]

RunOrCheckpoint = Annotated[
    Path, typer.Argument(help="Folder of a run, or of one of its checkpoints.")
]

TracksOption = Annotated[
    str | None,
    typer.Option(
        help="Tracks to drive: a set (train, validation, test or circuits), or a CSV file or a "
        "folder of CSV files with tracks of your own (default: the run's own tracks, or a set)."
    ),
]
TrackScale = Annotated[
    float | None,
    number(
        0.001,
        1000,
        "--track-scale",
        help="Number of px that one unit of the CSV files of --tracks becomes (default: lines in "
        "m fill the world, lines in px keep their size).",
    ),
]
RoadWidth = Annotated[
    float | None,
    number(
        20,
        120,
        "--road-width",
        help="Width in px of all roads of the CSV files of --tracks, in place of the widths there.",
    ),
]

RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Running Ray cluster to use: host:port, or auto (default: a Ray of its own)."
    ),
]

DashboardAddress = Annotated[
    str | None,
    typer.Option(
        help="Dashboard of the Ray cluster: host, host:8265 or URL (default: this machine's)."
    ),
]

PythonOnHead = Annotated[
    str, typer.Option(help="Python interpreter to use on the head node of the cluster.")
]

TokensFile = Annotated[
    Path, typer.Option("--tokens", envvar="RLCAR_TOKENS", help="File that holds the access tokens.")
]

Host = Annotated[str, typer.Option(help="Address to listen on, e.g. 0.0.0.0 for all of them.")]

Auth = Annotated[bool, typer.Option("--auth", help="Requires an access token of every client.")]

AllowAnonymous = Annotated[
    bool,
    typer.Option("--allow-anonymous", help="Lets other machines connect without an access token."),
]

Direct = Annotated[
    bool,
    typer.Option(
        "--direct",
        help="Serves this machine alone, without HAProxy in front, at the lowest latency.",
    ),
]


def chosen_tracks(
    tracks: str | None, track_scale: float | None, road_width: float | None
) -> "ChosenTracks":
    """Returns the options that choose tracks, for the code behind a command."""
    from rlcar.evaluation.chosen_tracks import ChosenTracks
    from rlcar.track.own.fitting import Scale

    return ChosenTracks(tracks, Scale(track_scale, road_width))


AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON for other programs.")]


def prepare_jax_on_cpu() -> None:
    """Leaves accelerators to other processes; call it before JAX is imported."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    compile_cache.prepare_jax()


def print_page(url: str) -> None:
    """Prints the address of the live page."""
    console.print(f"the page: {url}", highlight=False)


def say(text: str) -> None:
    """Prints a message to stderr, or logs it where the log is for programs."""
    if logs.are_json():
        logging.getLogger("rlcar.cli").info(text)
    else:
        console.print(text, markup=False, highlight=False)


@contextlib.contextmanager
def cluster_imports(hint: str = "") -> Iterator[None]:
    """Surrounds imports from `cluster`; raises UserError if one of its packages is missing.

    `hint` ends the message, for verbs that have an alternative to Ray.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _CLUSTER_PACKAGES:
            raise
        raise UserError(
            f"{_CLUSTER_PACKAGES[package]} is not installed: pip install 'rlcar[cluster]'{hint}"
        ) from error
