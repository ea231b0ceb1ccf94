"""The Ray Serve lane: one deployment that is ingress and policy at once, behind Ray's HAProxy."""

import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Iterator
from typing import Any

from rlcar.errors import UserError
from rlcar.system.interrupt import StopRequest
from rlcar.system.user_folders import folder_for_sockets
from serve.guard.limits import KEEP_ALIVE_TIMEOUT_S
from serve.lanes.haproxy import CLIENT_TIMEOUT_S, HEADERS_TIMEOUT_S, listen
from serve.settings import ServeSettings

APPLICATION = "rlcar"
_LOGGER = logging.getLogger(__name__)
_PROXY_PORTS = range(20_000, 32_000)
_STOPPING = "stopping: open requests are answered first"
_STILL_STOPPING = "still stopping; Ctrl-C again ends at once"
_LONGEST_NAME = len("metrics.sock.4194304.tmp")  # of a socket of HAProxy while it binds it
# Ray reads these when it is imported, in every process: they must be set before, on every node.
ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # the Python proxy alone costs 6 ms
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_worker_niceness": "0",  # at Ray's 15 a busy machine starves the replicas first
    # A car's requests reach the replica that remembers it; without the header any will do. Ray has
    # no setting for what follows, but writes this one into HAProxy's `defaults` as it is: few cars
    # move when a replica comes, headers that drip are cut off, and the client's address is known.
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": (
        "hdr(x-session-id)\n    hash-type consistent\n"
        f"    timeout http-request {HEADERS_TIMEOUT_S}s\n    option forwardfor"
    ),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(CLIENT_TIMEOUT_S),
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    # A replica that stops stays reachable for so long, until HAProxy no longer knows it (Ray's 30 s
    # are for load balancers of clouds), and then answers the requests that it has.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    "OPENBLAS_NUM_THREADS": "1",  # a car's matrices are too small to share
}


def serve_on_ray(settings: ServeSettings, address: str | None = None) -> None:
    """Serves until Ctrl-C or SIGTERM, on a Ray of its own or on the cluster at `address`.

    Open requests are answered first. Meanwhile another SIGTERM changes nothing, and the second
    Ctrl-C ends Ray at once.
    """
    with ray_serve(settings, address) as stop:
        while not stop:
            time.sleep(0.1)


@contextlib.contextmanager
def ray_serve(settings: ServeSettings, address: str | None = None) -> Iterator[StopRequest]:
    """The application runs on Ray until the block ends; Ray is left as it was found.

    Yields what is true once a signal has asked to stop.
    """
    _require_free(settings)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with contextlib.ExitStack() as stack:
        own: dict[str, Any] = {}
        if address is None:
            folder = stack.enter_context(folder_for_sockets("rlcar-haproxy-", _LONGEST_NAME))
            os.environ.update(_private_proxy(folder))
            from cluster.runtime import own_ray  # imports Ray, which reads the environment above

            own = stack.enter_context(own_ray())
        import ray
        from ray import serve

        from serve.app import build

        ray.init(
            address=address or "local",
            num_cpus=None if address else max(os.cpu_count() or 1, settings.max_replicas + 1),
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
        # Ray has its own handlers now; ours stay in place until everything has stopped.
        with contextlib.ExitStack() as stopping:
            try:
                serve.start(
                    proxy_location="HeadOnly",
                    http_options={
                        "host": settings.host,
                        "port": settings.port,
                        "keep_alive_timeout_s": KEEP_ALIVE_TIMEOUT_S,
                    },
                )
                serve.run(build(settings), name=APPLICATION, route_prefix="/")
                yield stopping.enter_context(StopRequest(_STOPPING))
            finally:
                stopping.enter_context(StopRequest(_STILL_STOPPING))
                try:
                    with contextlib.suppress(KeyboardInterrupt):
                        _stop_serve()
                finally:
                    ray.shutdown()


def _stop_serve() -> None:
    """Lets the replicas answer what they have, and then ends HAProxy.

    `serve.shutdown` alone ends HAProxy at once, and with it every open request.
    """
    from ray import serve

    try:
        serve.delete(APPLICATION)
    except Exception as error:  # the application never ran, or Ray itself has gone
        _LOGGER.debug("cannot drain the application: %s", error)
    serve.shutdown()


def _require_free(settings: ServeSettings) -> None:
    """HAProxy would only say so in its log, half a minute later."""
    listen(settings.host, settings.port).close()


def _private_proxy(folder: str) -> dict[str, str]:
    """HAProxy's own files and ports: by default two clusters on a machine would share them."""
    names = {
        "CONFIG_FILE_LOC": "haproxy.cfg",
        "SOCKET_PATH": "admin.sock",
        "SERVER_STATE_BASE": "",
        "SERVER_STATE_FILE": "server-state",
        "METRICS_SOCKET_PATH": "metrics.sock",
    }
    files = {f"RAY_SERVE_HAPROXY_{name}": f"{folder}/{file}" for name, file in names.items()}
    ports = {f"RAY_SERVE_HAPROXY_{name}_PORT": str(_free_port()) for name in ("METRICS", "STATS")}
    return files | ports


def _free_port() -> int:
    """Returns a port that HAProxy can bind later.

    It lies below those that the kernel gives to outgoing connections: one of them could take it
    before HAProxy starts.
    """
    for port in random.sample(_PROXY_PORTS, len(_PROXY_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise UserError(f"no port from {_PROXY_PORTS[0]} to {_PROXY_PORTS[-1]} is free for HAProxy")
