"""`rlcar data …`: records, checks, converts and combines data sets."""

import typer

from rlcar.cli import data_record

app = typer.Typer(
    no_args_is_help=True, help="Records, checks, converts and combines data sets of episodes."
)
app.command()(data_record.record)
