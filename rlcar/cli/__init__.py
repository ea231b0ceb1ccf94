"""`rlcar <verb>`: each verb parses, then makes one call."""

import logging
import sys

import typer
from rich.markup import escape

from rlcar import logs, terminal
from rlcar.cli import (
    campaign,
    chaos,
    doctor,
    jobs,
    looking,
    models,
    monitor,
    serving,
    training,
    tune,
    watching,
)
from rlcar.cli.shared import console
from rlcar.compile_cache import keep_compiled_code
from rlcar.errors import UserError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
for verb in (
    training.train,
    tune.tune,
    looking.evaluate,
    looking.profile,
    looking.dream,
    looking.play,
    looking.render,
    serving.serve,
    serving.drive,
    watching.watch,
    doctor.doctor,
    monitor.monitor,
    chaos.chaos,
    campaign.campaign,
):
    app.command()(verb)
app.add_typer(models.app, name="models")
app.add_typer(serving.tokens, name="tokens")
app.add_typer(jobs.jobs, name="jobs")
# What comes after the verb to submit is that verb's own.
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    jobs.submit
)


@app.callback()
def _about() -> None:
    """Cars that learn to drive inside a world model."""


def main() -> None:
    """Runs a verb; a user's mistake is one sentence and exit code 2."""
    terminal.set_up()
    logs.set_up("text")
    keep_compiled_code()
    try:
        app()
    except UserError as error:
        if logs.are_json():
            logging.getLogger("rlcar.cli").error(str(error))
        else:
            console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(2)
