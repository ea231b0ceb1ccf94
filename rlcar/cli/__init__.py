"""`rlcar <verb>`: each verb parses, then makes one call."""

import errno
import logging
import os
import sys
from typing import NoReturn

import typer
from rich.markup import escape

import rlcar.cli.before_numpy  # noqa: F401  comes first: the other modules import NumPy
from rlcar.cli import (
    campaign,
    chaos,
    doctor,
    jobs,
    models,
    monitor,
    serving,
    train,
    tune,
    viewing,
    watch,
)
from rlcar.cli.shared import console
from rlcar.devices.compile_cache import keep_compiled_code
from rlcar.errors import UserError, reason_of
from rlcar.system import logs, terminal
from rlcar.system.console import accept_any_text

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_OUT_OF = (errno.EMFILE, errno.ENFILE)

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
for verb in (
    train.train,
    tune.tune,
    viewing.evaluate,
    viewing.profile,
    viewing.dream,
    viewing.play,
    viewing.render,
    serving.serve,
    serving.drive,
    watch.watch,
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
    terminal.set_up()
    logs.set_up("text")
    keep_compiled_code()
    try:
        app()
    except UserError as error:
        _end_with(str(error))
    except OSError as error:
        # A full disk, a name that is too long, a folder of somebody else: no fault of the program.
        sentence = _sentence(error)
        if sentence is None:
            raise
        logging.getLogger("rlcar.cli").debug("the command failed", exc_info=True)
        _end_with(sentence)


def _end_with(sentence: str) -> NoReturn:
    if logs.are_json():
        logging.getLogger("rlcar.cli").error(sentence)
    else:
        console.print(f"[bold red]error:[/] {escape(sentence)}", highlight=False)
    sys.exit(2)


def _sentence(error: OSError) -> str | None:
    """Says what the system refused; None where it names neither a file nor a resource."""
    reason = reason_of(error)
    verb = "write" if error.errno in _OF_WRITING else "use"
    if error.filename is not None:
        return f"cannot {verb} {os.fsdecode(error.filename)}: {reason}"
    if error.errno in _OF_WRITING:
        return f"cannot write a file: {reason}"
    if error.errno in _OUT_OF or "usable temporary directory" in reason:
        return reason
    return None
