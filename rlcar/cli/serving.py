"""The verbs of serving: serve, drive, tokens."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rlcar.cli.shared import MODELS, RUNS, Direct, Where, console, number, print_page, say
from rlcar.devices import compile_cache
from rlcar.errors import UserError, reason_of
from rlcar.system.console import make_console
from rlcar.system.user_folders import expanded

tokens = typer.Typer(no_args_is_help=True, help="Access tokens of the policy server.")

_Tokens = Annotated[
    Path, typer.Option("--tokens", envvar="RLCAR_TOKENS", help="The file they are kept in.")
]
# Settings that `rlcar serve` takes from an option of their own.
_OPTION_OF = {
    "registry": "--registry",
    "alias": "--alias",
    "host": "--host",
    "port": "--port",
    "auth": "--auth",
    "tokens": "--tokens",
    "allow_anonymous": "--allow-anonymous",
    "is_behind_tls": "--behind-tls",
    "allowed_hosts": "--allowed-host",
    "allowed_origins": "--allowed-origin",
}
_TOKENS = Path("~/.config/rlcar/tokens.json")


def serve(
    run: Annotated[
        Path | None, typer.Argument(help="A run to publish first (default: what is published).")
    ] = None,
    lane: Annotated[
        str, typer.Option(help="ray (replicas behind HAProxy), or realtime (uvicorn, one process).")
    ] = "ray",
    registry: Where = MODELS,
    alias: Annotated[str, typer.Option(help="The alias that is followed.")] = "champion",
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Moves the alias to RUN even if it names another version."),
    ] = False,
    runs: Annotated[Path, typer.Option(help="Where runs are kept.")] = RUNS,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, number(0, 65_535, help="Where to listen.")] = 8000,
    auth: Annotated[bool, typer.Option("--auth", help="Only for those with a token.")] = False,
    tokens_: _Tokens = _TOKENS,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Other machines need no token.")
    ] = False,
    behind_tls: Annotated[
        bool, typer.Option("--behind-tls", help="A proxy in front speaks https.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name that browsers may call us by.")
    ] = None,
    allowed_origin: Annotated[
        list[str] | None, typer.Option(help="Another site whose pages may talk to us.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, e.g. deadline_ms=50.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster, or auto.")] = None,
    page: Annotated[bool, typer.Option("--page", help="The live page too; realtime only.")] = False,
    direct: Direct = False,
) -> None:
    """Serves the champion: POST /v1/act, WS /v1/drive, models, health, metrics."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # publishing a run must leave others the card
    from rlcar.registry import Registry
    from serve.policy.publishing import publish_for_serving
    from serve.settings import make_settings

    if lane not in ("ray", "realtime"):
        raise UserError(f"there is no lane {lane!r}: there are ray and realtime")
    if address is not None and lane != "ray":
        raise UserError("--address is of the Ray lane: leave out --lane realtime")
    if page and lane != "realtime":
        raise UserError("the page lives in one process: add --lane realtime, or leave out --page")
    if direct and lane != "realtime":
        raise UserError("--direct applies to the real-time lane: add --lane realtime")
    if page:
        compile_cache.prepare_jax()
    settings = make_settings(
        registry=registry if "://" in registry else str(expanded(registry).resolve()),
        alias=alias,
        host=host,
        port=port,
        auth=auth,
        tokens=expanded(tokens_).resolve() if auth else tokens_,
        allow_anonymous=allow_anonymous,
        is_behind_tls=behind_tls,
        allowed_hosts=tuple(allowed_host or ()),
        allowed_origins=tuple(allowed_origin or ()),
        **_settings(set_ or []),
    )
    if lane == "realtime":
        from serve.lanes.realtime import front_binary

        front_binary(settings, is_direct=direct)  # Fail before anything is published.
    if auth:
        _require_tokens(settings.tokens)
    published = publish_for_serving(
        Registry(settings.registry), run, runs, alias, should_promote=promote
    )
    if published is not None:
        say(published.message)
        settings = settings.model_copy(update={"alias": published.follow})
    if lane == "ray":
        from serve.lanes.ray_serve import serve_on_ray

        console.print(f"http://{host}:{port}/v1/act; Ctrl-C stops", highlight=False)
        serve_on_ray(settings, address)
    elif page:
        from serve.live.app import run_live
        from serve.live.session import open_live

        live = open_live(settings.registry, preferred=settings.alias)
        run_live(live, settings, print_page, is_direct=direct)
    else:
        from serve.lanes.realtime import serve_realtime

        def print_url(url: str) -> None:
            console.print(f"{url}v1/act; Ctrl-C stops", highlight=False)

        serve_realtime(settings, is_direct=direct, on_ready=print_url)


def drive(
    url: Annotated[str, typer.Argument(help="The server's, e.g. http://127.0.0.1:8000.")],
    tracks: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    world: Annotated[str | None, typer.Option(help="Another world than the model's.")] = None,
    websocket: Annotated[
        bool, typer.Option("--websocket", help="WS /v1/drive instead of POST /v1/act.")
    ] = False,
    token: Annotated[str | None, typer.Option(envvar="RLCAR_TOKEN", help="Who asks.")] = None,
    timeout_ms: Annotated[
        float, number(1, 60_000, help="Past it a car holds, then brakes.")
    ] = 100.0,
) -> None:
    """Lets a served policy drive unseen tracks over the network; reports laps and latency."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    compile_cache.prepare_jax()
    from rlcar.config import make_race_config
    from serve.client.client import DriveClient
    from serve.client.closed_loop import drive_served, print_drive

    race = None if world is None else make_race_config(world)
    with DriveClient(url, websocket=websocket, token=token, timeout_ms=timeout_ms) as client:
        print_drive(drive_served(client, tracks, race), make_console())


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="Who has it: letters, digits, hyphens.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="read, act, drive or admin; several are possible.")
    ] = None,
    expires_days: Annotated[
        float | None, typer.Option(help="More than 0, up to 36,500. Default: never.")
    ] = None,
    tokens_: _Tokens = _TOKENS,
) -> None:
    """Makes a token and shows its secret, once."""
    from serve.guard.tokens import TokenStore

    with _using(tokens_):
        expires_s = None if expires_days is None else expires_days * 86_400.0
        _show_secret(TokenStore(tokens_).create(name, scope or ["read", "act"], expires_s))


@tokens.command("list")
def list_tokens(tokens_: _Tokens = _TOKENS) -> None:
    """Lists the tokens, without their secrets."""
    from rich.table import Table

    from serve.guard.tokens import TokenStore, described

    table = Table("name", "scopes", "created", "ends")
    with _using(tokens_):
        for token in TokenStore(tokens_).tokens():
            table.add_row(*described(token))
    make_console().print(table)


@tokens.command("revoke")
def revoke_token(
    name: Annotated[str, typer.Argument(help="The name of the token.")], tokens_: _Tokens = _TOKENS
) -> None:
    """Ends a token; servers notice within a second, and close its connections."""
    from serve.guard.tokens import TokenStore

    with _using(tokens_):
        TokenStore(tokens_).revoke(name)
    console.print(f"Token {name} revoked.", highlight=False)


@tokens.command("rotate")
def rotate_token(
    name: Annotated[str, typer.Argument(help="The name of the token.")],
    overlap_min: Annotated[
        float, typer.Option(help="The old secret works so much longer; 0: it ends at once.")
    ] = 60.0,
    tokens_: _Tokens = _TOKENS,
) -> None:
    """Gives a token a new secret, and shows it once."""
    from serve.guard.tokens import TokenStore

    with _using(tokens_):
        _show_secret(TokenStore(tokens_).rotate(name, overlap_min * 60.0))


def _show_secret(secret: str) -> None:
    console.print("the secret, shown this once; only its hash is kept:", highlight=False)
    typer.echo(secret)


@contextlib.contextmanager
def _using(path: Path) -> Iterator[None]:
    """Tells in one sentence of a file of tokens that cannot be read or written."""
    try:
        yield
    except OSError as error:
        place, reason = error.filename or path, reason_of(error)
        raise UserError(
            f"cannot use the file of tokens {place} ({reason}): name another with --tokens, or "
            "correct its permissions"
        ) from error


def _require_tokens(path: Path) -> None:
    from serve.guard.tokens import TokenStore

    with _using(path):
        found = TokenStore(path).tokens()
    if all(token.is_revoked for token in found):
        raise UserError(f"{path} holds no token, so nobody could ask: rlcar tokens create NAME")


def _settings(texts: list[str]) -> dict[str, str]:
    """Reads `NAME=VALUE`; refuses the settings that have an option of their own."""
    settings = dict(_pair(text) for text in texts)
    for name in sorted(_OPTION_OF.keys() & settings.keys()):
        raise UserError(f"--set {name}={settings[name]}: give it as {_OPTION_OF[name]}")
    return settings


def _pair(text: str) -> tuple[str, str]:
    name, is_setting, value = text.partition("=")
    if not is_setting:
        raise UserError(f"--set {text}: say NAME=VALUE")
    return name, value
