"""`rlcar tokens …`: the access tokens of the policy server."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rlcar.cli.shared import TOKENS, TokensFile, console
from rlcar.errors import UserError, reason_of
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

app = typer.Typer(no_args_is_help=True, help="Creates, lists and revokes access tokens of servers.")

_S_PER_DAY, _S_PER_MIN = 86_400.0, 60.0

Name = Annotated[str, typer.Argument(help="Name of the token, as rlcar tokens list shows it.")]


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(help="Name of the new token: letters, digits and hyphens.")
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What the token allows: read, act, drive or admin; repeatable (default: read and "
            "act)."
        ),
    ] = None,
    expires_days: Annotated[
        float | None,
        typer.Option(
            help="Days until the token expires: more than 0, up to 36,500 (default: never)."
        ),
    ] = None,
    tokens: TokensFile = TOKENS,
) -> None:
    """Makes a token and shows its secret, once."""
    from serve.guard.tokens import TokenStore

    with _file_errors(tokens):
        expires_s = None if expires_days is None else expires_days * _S_PER_DAY
        _show_secret(TokenStore(tokens).create(name, scope or ["read", "act"], expires_s))


@app.command("list")
def list_(tokens: TokensFile = TOKENS) -> None:
    """Lists the tokens, without their secrets."""
    from serve.guard.tokens import TokenStore, described

    table = make_table("name", "scopes", "created", "ends")
    with _file_errors(tokens):
        for token in TokenStore(tokens).tokens():
            table.add_row(*described(token))
    make_console().print(table)


@app.command()
def revoke(name: Name, tokens: TokensFile = TOKENS) -> None:
    """Ends a token; servers notice within a second and close its connections."""
    from serve.guard.tokens import TokenStore

    with _file_errors(tokens):
        TokenStore(tokens).revoke(name)
    console.print(f"Token {name} revoked.", highlight=False)


@app.command()
def rotate(
    name: Name,
    overlap_min: Annotated[
        float,
        typer.Option(help="Minutes for which the old secret still works; 0 ends it at once."),
    ] = 60.0,
    tokens: TokensFile = TOKENS,
) -> None:
    """Gives a token a new secret, and shows it once."""
    from serve.guard.tokens import TokenStore

    with _file_errors(tokens):
        _show_secret(TokenStore(tokens).rotate(name, overlap_min * _S_PER_MIN))


def require_token(path: Path) -> None:
    """Raises UserError if no token in the file is valid, so that no client could connect."""
    from serve.guard.tokens import TokenStore

    with _file_errors(path):
        found = TokenStore(path).tokens()
    if all(token.is_revoked for token in found):
        raise UserError(
            f"{path} holds no token, so no client could connect: rlcar tokens create NAME"
        )


def _show_secret(secret: str) -> None:
    console.print("the secret, shown this once; only its hash is kept:", highlight=False)
    typer.echo(secret)


@contextlib.contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """Raises UserError for a file of tokens that cannot be read or written."""
    try:
        yield
    except OSError as error:
        place, reason = error.filename or path, reason_of(error)
        raise UserError(
            f"cannot use the file of tokens {place} ({reason}): name another with --tokens, or "
            "correct its permissions"
        ) from error
