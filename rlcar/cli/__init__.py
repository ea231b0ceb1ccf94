"""`rlcar <verb>`: each verb parses, then makes one call."""

import logging
import sys

import typer
from rich.markup import escape

from rlcar.cli import looking, serving, training, watching
from rlcar.cli.shared import console
from rlcar.compile_cache import keep_compiled_code
from rlcar.errors import UserError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
for verb in (
    training.train,
    looking.evaluate,
    looking.profile,
    looking.dream,
    looking.play,
    looking.render,
    serving.serve,
    serving.drive,
    watching.watch,
):
    app.command()(verb)
app.add_typer(serving.tokens, name="tokens")


@app.callback()
def _about() -> None:
    """Cars that learn to drive inside a world model."""


def main() -> None:
    """Runs a verb; a user's mistake is one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    keep_compiled_code()
    try:
        app()
    except UserError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(2)
