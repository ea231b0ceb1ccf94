"""The Ray Serve lane: one deployment, both ingress and policy, behind Ray's HAProxy."""

import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Iterator

from rlcar.errors import UserError
from rlcar.system.interrupt import StopRequest, exiting_at_sigterm
from rlcar.system.user_folders import folder_for_sockets
from serve.guard.limits import KEEP_ALIVE_TIMEOUT_S
from serve.lanes.haproxy import listen
from serve.settings import ServeSettings

APPLICATION = "rlcar"
_LOGGER = logging.getLogger(__name__)
_PROXY_PORTS = range(20_000, 32_000)
_CONNECT_TIMEOUT_S = 20.0
_STOPPING = "stopping: open requests are answered first"
_STILL_STOPPING = "still stopping; Ctrl-C again ends at once"
_LONGEST_NAME = len("metrics.sock.4194304.tmp")  # of a socket that HAProxy binds
# Ray writes HAProxy's configuration for this lane, and knows none of our settings.
_HEADERS_TIMEOUT_S = 10
_CLIENT_TIMEOUT_S = 60
# Ray reads these when it is imported, so they must be set before that, on every node.
ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # Ray's Python proxy adds 6 ms
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_worker_niceness": "0",  # with Ray's default of 15, a busy machine starves the replicas
    # The header routes a car's requests to the replica that has its session. Ray copies this value
    # unchanged into HAProxy's `defaults`, so it can also set what Ray has no setting for: a new
    # replica takes over few cars, slow headers time out, and the client's address is forwarded.
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": (
        "hdr(x-session-id)\n    hash-type consistent\n"
        f"    timeout http-request {_HEADERS_TIMEOUT_S}s\n    option forwardfor"
    ),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(_CLIENT_TIMEOUT_S),
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    # A stopping replica accepts requests for this long, until HAProxy has removed it (Ray's default
    # of 30 s is meant for the load balancers of clouds), and then answers its open requests.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    "OPENBLAS_NUM_THREADS": "1",  # a policy's matrices are too small for several threads
}


def serve_on_ray(settings: ServeSettings, address: str | None = None) -> None:
    """Serves until Ctrl-C or SIGTERM, on a new local Ray or on the cluster at `address`.

    The server then answers the open requests. Meanwhile another SIGTERM has no effect, and a second
    Ctrl-C ends Ray at once.
    """
    with ray_serve(settings, address) as stop:
        while not stop:
            time.sleep(0.1)


@contextlib.contextmanager
def ray_serve(settings: ServeSettings, address: str | None = None) -> Iterator[StopRequest]:
    """Runs the application on Ray until the block ends; a cluster at `address` keeps running.

    Yields an object that is true once a signal has asked to stop.
    """
    _require_free(settings)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with contextlib.ExitStack() as stack:
        if address is None:
            folder = stack.enter_context(folder_for_sockets("rlcar-haproxy-", _LONGEST_NAME))
            os.environ.update(_private_proxy(folder))
        # These import Ray, which reads the environment above.
        import ray
        from ray import serve

        from cluster.runtime import join_ray, own_ray, start_ray
        from serve.app import build

        if address is None:
            own = stack.enter_context(own_ray())
            start_ray(num_cpus=max(os.cpu_count() or 1, settings.max_replicas + 1), **own)
        else:
            join_ray(address, _CONNECT_TIMEOUT_S)
        # Ray has installed its own handlers now; ours replace them until everything has stopped.
        with exiting_at_sigterm(0), contextlib.ExitStack() as stopping:
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
    """Lets the replicas answer their open requests, and then ends HAProxy.

    `serve.shutdown` alone would end HAProxy at once, and with it every open request.
    """
    from ray import serve

    try:
        serve.delete(APPLICATION)
    except Exception as error:  # the application never ran, or Ray itself has ended
        _LOGGER.debug("cannot drain the application: %s", error)
    serve.shutdown()


def _require_free(settings: ServeSettings) -> None:
    """Raises UserError if the port is in use; HAProxy would only log it, half a minute later."""
    listen(settings.host, settings.port).close()


def _private_proxy(folder: str) -> dict[str, str]:
    """Sets HAProxy's files and ports, which two clusters on a machine would otherwise share."""
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
    """Returns a free port that HAProxy can bind later.

    It is below the ports that the kernel assigns to outgoing connections, so that none of them
    takes it before HAProxy starts.
    """
    for port in random.sample(_PROXY_PORTS, len(_PROXY_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise UserError(f"no port from {_PROXY_PORTS[0]} to {_PROXY_PORTS[-1]} is free for HAProxy")
