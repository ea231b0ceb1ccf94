"""The live page beside the policy server, in one process: what `rlcar watch` runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from serve.lanes.realtime import serve_with_front, uvicorn_config
from serve.live.metrics import LiveCollector
from serve.live.routes import live_routes
from serve.live.session import LiveSession
from serve.settings import ServeSettings


def live_config(
    live: LiveSession, settings: ServeSettings, front_socket: Path | None = None
) -> uvicorn.Config:
    """Returns how uvicorn runs the policy server with the page on it, behind one guard."""
    routes = live_routes(live, legacy_get=not settings.auth)
    config = uvicorn_config(settings, routes, [live.running], front_socket)
    guard: Any = config.app
    guard.app.metrics.register(LiveCollector(live))
    return config


def run_live(
    live: LiveSession,
    settings: ServeSettings,
    on_ready: Callable[[str], None] | None = None,
    *,
    is_direct: bool = False,
) -> None:
    """Serves until Ctrl-C; `on_ready` is told the page's address. Port 0 takes any free one."""
    serve_with_front(
        settings,
        lambda front_socket: live_config(live, settings, front_socket),
        is_direct=is_direct,
        on_ready=on_ready,
    )
