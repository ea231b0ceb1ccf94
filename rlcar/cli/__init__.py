"""`rlcar <verb>`: each verb parses, then makes one call."""

import errno
import logging
import os
import sys

import typer
from rich.markup import escape

from rlcar import logs
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
from rlcar.terminal import accept_any_text

_OUT_OF = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS)

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
    accept_any_text()
    logs.set_up("text")
    keep_compiled_code()
    try:
        app()
    except UserError as error:
        _say_error(str(error))
        sys.exit(2)
    except OSError as error:
        # A folder that cannot be written, a full disk: whatever the place, it is no fault of ours.
        reason = _reason(error)
        if reason is None:
            raise
        logging.getLogger("rlcar.cli").debug("where it happened", exc_info=True)
        _say_error(reason)
        sys.exit(2)


def _say_error(text: str) -> None:
    if logs.are_json():
        logging.getLogger("rlcar.cli").error(text)
    else:
        console.print(f"[bold red]error:[/] {escape(text)}", highlight=False)


def _reason(error: OSError) -> str | None:
    """What the system refused, in a sentence; None where it names neither a file nor a resource."""
    said = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {said}"
    if error.errno in _OUT_OF or "usable temporary directory" in said:
        return said
    return None
