"""The real-time lane: the application under uvicorn, alone in one process."""

from collections.abc import Sequence
from typing import Any

import uvicorn

from serve.app import Background, make_app
from serve.protocol import bounded_http
from serve.settings import ServeSettings

KEEP_ALIVE_S = 75  # longer than a proxy's or a client's own


def uvicorn_config(
    settings: ServeSettings, routes: Sequence[Any] = (), background: Sequence[Background] = ()
) -> uvicorn.Config:
    """Returns how uvicorn runs the application, with what else belongs to it (`make_app`)."""
    return uvicorn.Config(
        make_app(settings, routes, background),
        host=settings.host,
        port=settings.port,
        http=bounded_http(settings),
        ws="websockets-sansio",
        ws_max_size=settings.act_body_bytes,
        ws_per_message_deflate=False,  # a small frame could unfold to a large one
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # an address that a client tells us of itself is no address
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
        backlog=1024,
    )


def serve_realtime(settings: ServeSettings) -> None:
    """Serves until Ctrl-C or SIGTERM; open requests are answered first."""
    uvicorn.Server(uvicorn_config(settings)).run()
