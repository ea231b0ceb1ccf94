"""`rlcar <verb>`: each verb reads its options, then makes one call."""

import errno
import logging
import os
import sys
from typing import NoReturn

import typer
import typer.rich_utils
from rich.markup import escape

import rlcar.cli.before_numpy  # noqa: F401  comes first: the other modules import NumPy
from rlcar.cli import (
    backup,
    campaign,
    chaos,
    data,
    doctor,
    drive,
    evaluate,
    host,
    jobs,
    league,
    models,
    monitor,
    offline,
    ope,
    pipeline,
    profile,
    restore,
    rollout,
    serving,
    soak,
    tokens,
    tracks,
    train,
    tune,
    viewing,
    watch,
)
from rlcar.cli.shared import console
from rlcar.devices.compile_cache import keep_compiled_code
from rlcar.errors import UserError, reason_of
from rlcar.system import error_file, logs, terminal
from rlcar.system.console import accept_any_text

_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)

app = typer.Typer(pretty_exceptions_enable=False)
for verb in (
    train.train,
    tune.tune,
    evaluate.evaluate,
    league.league,
    ope.ope,
    offline.offline,
    pipeline.pipeline,
    profile.profile,
    viewing.dream,
    viewing.play,
    viewing.render,
    serving.serve,
    drive.drive,
    watch.watch,
    doctor.doctor,
    monitor.monitor,
    chaos.chaos,
    soak.soak,
    restore.restore,
):
    app.command()(verb)
app.add_typer(models.app, name="models")
app.add_typer(campaign.app, name="campaign")
app.add_typer(rollout.app, name="rollout")
app.add_typer(backup.app, name="backup")
app.add_typer(data.app, name="data")
app.add_typer(tracks.app, name="tracks")
app.add_typer(tokens.app, name="tokens")
app.add_typer(host.app, name="host")
app.add_typer(jobs.jobs, name="jobs")
# What comes after the verb to submit belongs to that verb.
app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    jobs.submit
)

_START = """\
Cars that learn to drive inside a world model. To start:

  rlcar train          trains a policy and reports how it drives
  rlcar watch latest   opens a page that shows the newest run drive
  rlcar serve          serves the policy over HTTP and WebSocket

rlcar --help lists all commands; rlcar COMMAND --help explains one."""


@app.callback(invoke_without_command=True)
def _about(context: typer.Context) -> None:
    """Cars that learn to drive inside a world model."""
    if context.invoked_subcommand is None:
        typer.echo(_START)


def main() -> None:
    """Runs a verb; a user's mistake is one sentence and exit code 2."""
    accept_any_text()
    terminal.set_up()
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        # FORCE_COLOR, or GITHUB_ACTIONS in a CI log, would put colours of help texts into files.
        typer.rich_utils.FORCE_TERMINAL = False
    logs.set_up("text")
    keep_compiled_code()
    try:
        app()
    except UserError as error:
        error_file.write(error)
        _end_with(str(error), error.exit_code)
    except OSError as error:
        # A full disk, a name that is too long or a folder without permission is no bug of ours.
        sentence = _explain(error)
        error_file.write(error, sentence)
        if sentence is None:
            raise
        logging.getLogger("rlcar.cli").debug("the command failed", exc_info=True)
        _end_with(sentence)
    except Exception as error:
        error_file.write(error)
        raise


def _end_with(sentence: str, code: int = UserError.exit_code) -> NoReturn:
    if logs.are_json():
        logging.getLogger("rlcar.cli").error(sentence)
    else:
        console.print(f"[bold red]error:[/] {escape(sentence)}", highlight=False)
    sys.exit(code)


def _explain(error: OSError) -> str | None:
    """Says what the system refused; None if the error names neither a file nor a resource."""
    reason = reason_of(error)
    verb = "write" if error.errno in _WRITE_ERRORS else "use"
    if error.filename is not None:
        return f"cannot {verb} {os.fsdecode(error.filename)}: {reason}"
    if error.errno in _WRITE_ERRORS:
        return f"cannot write a file: {reason}"
    if error.errno in _TOO_MANY_FILES or "usable temporary directory" in reason:
        return reason
    # A library may raise an error of its own, as Matplotlib does without a temporary folder.
    return _explain(error.__cause__) if isinstance(error.__cause__, OSError) else None
