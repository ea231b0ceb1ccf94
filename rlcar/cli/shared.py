"""What several verbs share: the console for messages, common options."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

RUNS = Path("runs")
MODELS = "models"
console = Console(stderr=True, soft_wrap=True)

Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, e.g. training.env_steps=100000.")
]
