"""Parses command lines of `rlcar` without running them."""

from collections.abc import Sequence

import typer

from rlcar.cli import app


def parse(words: Sequence[str]) -> str | None:
    """Parses the words after `rlcar`; returns the last subcommand, or raises click's error."""
    context = typer.main.get_command(app).make_context("rlcar", list(words))
    while hasattr(context.command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(name, rest, context)
    return context.info_name
