"""The port at which a process without a web server of its own answers Prometheus."""

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server

from rlcar.errors import UserError, reason_of

# Prometheus is usually on another host or in another container.
EVERY_ADDRESS = "0.0.0.0"


@contextlib.contextmanager
def serving_metrics(registry: CollectorRegistry, port: int) -> Iterator[int]:
    """Serves a registry at `/metrics` in threads; yields the port, which 0 leaves to the system.

    Raises UserError if the port cannot be used.
    """
    try:
        server, thread = start_http_server(port, EVERY_ADDRESS, registry)
    except OSError as error:
        raise UserError(
            f"--metrics-port {port} cannot be used ({reason_of(error)}): choose another port, or 0 "
            "for a free one"
        ) from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
