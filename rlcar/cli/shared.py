"""What several verbs share: the console for messages, common options."""

import importlib
import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rlcar import logs
from rlcar.errors import UserError

RUNS = Path("runs")
MODELS = "models"
console = Console(stderr=True, soft_wrap=True, emoji=False)

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
