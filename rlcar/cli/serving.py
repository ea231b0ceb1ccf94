"""`rlcar serve`: serve a policy over the network."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlcar.cli.shared import (
    MODELS,
    RUNS,
    TOKENS,
    AllowAnonymous,
    Auth,
    Direct,
    Host,
    RayAddress,
    RunsFolder,
    TokensFile,
    Where,
    cluster_imports,
    console,
    number,
    print_page,
    say,
)
from rlcar.cli.tokens import require_token
from rlcar.devices import compile_cache
from rlcar.errors import UserError
from rlcar.system.user_folders import expanded

if TYPE_CHECKING:
    from serve.settings import ServeSettings

# Settings that `rlcar serve` takes from an option of their own.
_OPTION_OF = {
    "registry": "--registry",
    "alias": "--alias",
    "waits_for_model": "--wait-for-model",
    "record": "--record",
    "record_share": "--record-share",
    "record_limit_mb": "--record-limit-mb",
    "integrations": "--integrations",
    "host": "--host",
    "port": "--port",
    "auth": "--auth",
    "tokens": "--tokens",
    "allow_anonymous": "--allow-anonymous",
    "is_behind_tls": "--behind-tls",
    "allowed_hosts": "--allowed-host",
    "allowed_origins": "--allowed-origin",
}

Run = Annotated[
    Path | None,
    typer.Argument(
        help="Run to publish and serve (default: what the registry holds or, if it is empty, the "
        "newest complete run)."
    ),
]
Lane = Annotated[
    str,
    typer.Option(
        help="Kind of server: ray (replicas behind HAProxy), or realtime (uvicorn, one process)."
    ),
]
Alias = Annotated[
    str, typer.Option(help="Alias of the registry to follow, or the number of a version to serve.")
]
Promote = Annotated[
    bool,
    typer.Option("--promote", help="Moves --alias to RUN even if it names another version now."),
]
WaitForModel = Annotated[
    bool,
    typer.Option(
        "--wait-for-model",
        help="Starts with an empty registry too, publishes no run, and answers with the safe "
        "action until a version is published.",
    ),
]
BehindTls = Annotated[
    bool, typer.Option("--behind-tls", help="Tells the server that a proxy in front speaks HTTPS.")
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(help="Further host name by which browsers may address the server; repeatable."),
]
AllowedOrigin = Annotated[
    list[str] | None,
    typer.Option(help="Origin of another site whose pages may send requests; repeatable."),
]
ServeSetting = Annotated[
    list[str] | None,
    typer.Option("--set", help="Changes one setting of the server, e.g. deadline_ms=50."),
]
Record = Annotated[
    Path | None,
    typer.Option(
        envvar="RLCAR_RECORD",
        help="Folder into which sessions are recorded as data sets, one below it for each server.",
    ),
]
RecordShare = Annotated[
    float | None,
    typer.Option(
        envvar="RLCAR_RECORD_SHARE", help="Share of the sessions to record, up to 1 (default: 1)."
    ),
]
RecordLimit = Annotated[
    float | None,
    typer.Option(
        envvar="RLCAR_RECORD_LIMIT_MB",
        help="Largest size of a server's recording in MB; the oldest episodes are deleted "
        "(default: 1000).",
    ),
]
IntegrationsFile = Annotated[
    Path | None,
    typer.Option(
        "--integrations",
        envvar="RLCAR_INTEGRATIONS",
        help="YAML file with the webhooks, the Grafana and the Prometheus of rollouts.",
    ),
]
Page = Annotated[
    bool, typer.Option("--page", help="Shows the live page as well; with --lane realtime only.")
]


def serve(
    run: Run = None,
    lane: Lane = "ray",
    registry: Where = MODELS,
    alias: Alias = "champion",
    promote: Promote = False,
    wait_for_model: WaitForModel = False,
    runs: RunsFolder = RUNS,
    host: Host = "127.0.0.1",
    port: Annotated[int, number(0, 65_535, help="Port to listen on; 0 takes a free one.")] = 8000,
    auth: Auth = False,
    tokens: TokensFile = TOKENS,
    allow_anonymous: AllowAnonymous = False,
    behind_tls: BehindTls = False,
    allowed_host: AllowedHost = None,
    allowed_origin: AllowedOrigin = None,
    record: Record = None,
    record_share: RecordShare = None,
    record_limit_mb: RecordLimit = None,
    integrations: IntegrationsFile = None,
    set_: ServeSetting = None,
    address: RayAddress = None,
    page: Page = False,
    direct: Direct = False,
) -> None:
    """Serves the champion, or RUN: POST /v1/act, WS /v1/drive, models, health, metrics."""
    _refuse_contradictions(lane, address, page, direct)
    if wait_for_model and run is not None:
        raise UserError(f"{run} is published at once: leave out --wait-for-model, or the run")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # publishing a run needs no accelerator
    from serve.delivery.integrations import read_integrations
    from serve.settings import make_settings

    if page:
        compile_cache.prepare_jax()
    settings = make_settings(
        registry=registry if "://" in registry else str(expanded(registry).resolve()),
        alias=alias,
        waits_for_model=wait_for_model,
        host=host,
        port=port,
        auth=auth,
        tokens=expanded(tokens).absolute() if auth else tokens,
        allow_anonymous=allow_anonymous,
        is_behind_tls=behind_tls,
        allowed_hosts=tuple(allowed_host or ()),
        allowed_origins=tuple(allowed_origin or ()),
        integrations=None if integrations is None else expanded(integrations).absolute(),
        **_recording(record, record_share, record_limit_mb),
        **_settings(set_ or []),
    )
    if lane == "realtime":
        from serve.lanes.realtime import front_binary

        front_binary(settings, is_direct=direct)  # Fail before anything is published.
    read_integrations(settings.integrations)  # Fail here and not in a replica.
    if auth:
        require_token(settings.tokens)
    if not wait_for_model:
        settings = _publish(settings, run, runs, promote)
    if lane == "ray":
        _serve_on_ray(settings, address)
    else:
        _serve_in_this_process(settings, page=page, is_direct=direct)


def _refuse_contradictions(lane: str, address: str | None, page: bool, direct: bool) -> None:
    if lane not in ("ray", "realtime"):
        raise UserError(f"there is no lane {lane!r}: there are ray and realtime")
    if address is not None and lane != "ray":
        raise UserError("--address is of the Ray lane: leave out --lane realtime")
    if page and lane != "realtime":
        raise UserError("the page lives in one process: add --lane realtime, or leave out --page")
    if direct and lane != "realtime":
        raise UserError("--direct applies to the real-time lane: add --lane realtime")


def _recording(folder: Path | None, share: float | None, limit_mb: float | None) -> dict[str, Any]:
    """Returns the settings of a recording that were given."""
    given = {"record_share": share, "record_limit_mb": limit_mb}
    known = {name: value for name, value in given.items() if value is not None}
    if folder is None:
        for name in known:
            raise UserError(f"{_OPTION_OF[name]} is for a recording: add --record FOLDER")
        return {}
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--record {folder} is a file: name a folder")
    return {"record": expanded(folder).absolute()} | known


def _publish(
    settings: "ServeSettings", run: Path | None, runs: Path, promote: bool
) -> "ServeSettings":
    """Publishes the run, if any; returns the settings with the alias or version to follow."""
    from rlcar.registry import Registry
    from serve.policy.publishing import publish_for_serving

    published = publish_for_serving(
        Registry(settings.registry), run, runs, settings.alias, should_promote=promote
    )
    if published is None:
        return settings
    say(published.message)
    return settings.model_copy(update={"alias": published.follow})


def _serve_on_ray(settings: "ServeSettings", address: str | None) -> None:
    with cluster_imports(", or serve with --lane realtime"):
        from serve.lanes.ray_serve import serve_on_ray

    url = f"http://{settings.host}:{settings.port}/v1/act"
    console.print(f"{url}; Ctrl-C stops", highlight=False)
    serve_on_ray(settings, address)


def _serve_in_this_process(settings: "ServeSettings", *, page: bool, is_direct: bool) -> None:
    if page:
        from serve.live.app import run_live
        from serve.live.session import open_live

        live = open_live(settings.registry, preferred=settings.alias)
        run_live(live, settings, print_page, is_direct=is_direct)
        return
    from serve.lanes.realtime import serve_realtime

    def print_url(url: str) -> None:
        console.print(f"{url}v1/act; Ctrl-C stops", highlight=False)

    serve_realtime(settings, is_direct=is_direct, on_ready=print_url)


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
