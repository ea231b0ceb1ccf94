"""The Ray Serve lane: one deployment that is ingress and policy at once, behind Ray's HAProxy."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from rlcar.errors import UserError
from rlcar.interrupt import StopRequest
from rlcar.user_folders import folder_for_sockets
from serve.settings import ServeSettings

APPLICATION = "rlcar"
_LONGEST_NAME = len("metrics.sock.4194304.tmp")  # of a socket of HAProxy while it binds it
# Ray reads these when it is imported, in every process: they must be set before, on every node.
ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # the Python proxy alone costs 6 ms
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_worker_niceness": "0",  # at Ray's 15 a busy machine starves the replicas first
    # A car's requests reach the replica that remembers it; without the header any will do. Ray has
    # no setting for what follows, but writes this one into HAProxy's `defaults` as it is: few cars
    # move when a replica comes, and headers that drip are cut off.
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": (
        "hdr(x-session-id)\n    hash-type consistent\n    timeout http-request 10s"
    ),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    "OPENBLAS_NUM_THREADS": "1",  # a car's matrices are too small to share
}


def serve_on_ray(settings: ServeSettings, address: str | None = None) -> None:
    """Serves until Ctrl-C or SIGTERM, on a Ray of its own or on the cluster at `address`."""
    with ray_serve(settings, address), StopRequest() as stop:
        while not stop:
            time.sleep(0.2)


@contextlib.contextmanager
def ray_serve(settings: ServeSettings, address: str | None = None) -> Iterator[None]:
    """The application runs on Ray until the block ends; Ray is left as it was found."""
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
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={
                    "host": settings.host,
                    "port": settings.port,
                    "keep_alive_timeout_s": 75,
                },
            )
            serve.run(build(settings), name=APPLICATION, route_prefix="/")
            yield
        finally:
            serve.shutdown()
            ray.shutdown()


def _require_free(settings: ServeSettings) -> None:
    """HAProxy would only say so in its log, half a minute later."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise UserError(f"cannot listen at {where} ({error.strerror}): --port") from error


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
