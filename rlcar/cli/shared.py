"""What several verbs share: the console for messages, common options."""

import importlib
import logging
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from rlcar.errors import UserError
from rlcar.system import logs
from rlcar.system.console import make_console

RUNS = Path("runs")
MODELS = "models"
console = make_console(stderr=True, soft_wrap=True, emoji=False)


def number(low: float, high: float, *names: str, help: str, **more: Any) -> Any:
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

    help = f"{help} [{low:,} to {high:,}]"
    return typer.Option(*names, help=help, callback=check, **more)


def _shortened(whole: int) -> str:
    digits = str(whole)
    return digits if len(digits) <= 24 else f"{digits[:12]}… ({len(digits)} digits)"


Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, e.g. training.env_steps=100000.")
]

Where = Annotated[
    str,
    typer.Option(
        "--registry", envvar="RLCAR_REGISTRY", help="A folder, or a URL such as s3://bucket/models."
    ),
]

Direct = Annotated[
    bool,
    typer.Option(
        "--direct",
        help="Serve this machine alone, without HAProxy in front, at the lowest latency.",
    ),
]


def print_page(url: str) -> None:
    """Prints the address of the live page."""
    console.print(f"the page: {url}", highlight=False)


def say(text: str) -> None:
    """Tells the user, or whatever reads the log."""
    if logs.are_json():
        logging.getLogger("rlcar.cli").info(text)
    else:
        console.print(text, markup=False, highlight=False)


def import_cluster(module: str) -> Any:
    """Imports a module of `cluster`; raises UserError where Ray is not installed."""
    try:
        return importlib.import_module(f"cluster.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("ray", "aiohttp"):
            raise
        raise UserError(
            "Ray is not installed: pip install 'rlcar[cluster]', or train with --local"
        ) from error
