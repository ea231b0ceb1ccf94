"""The port at which a process without a web server of its own answers Prometheus."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from rlcar.errors import UserError, reason_of


class _DualStackServer(ThreadingWSGIServer):
    """Answers at every IPv6 and IPv4 address: on many hosts `localhost` is `::1` first."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        # The default of this option is a setting of the system (net.ipv6.bindv6only).
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _SilentHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving_metrics(registry: CollectorRegistry, port: int) -> Iterator[int]:
    """Serves a registry at `/metrics` in threads; yields the port, which 0 leaves to the system.

    Raises UserError if the port cannot be used.
    """
    kind = _DualStackServer if socket.has_dualstack_ipv6() else ThreadingWSGIServer
    try:
        server = make_server("", port, make_wsgi_app(registry), kind, _SilentHandler)
    except OSError as error:
        raise UserError(
            f"--metrics-port {port} cannot be used ({reason_of(error)}): choose another port, or 0 "
            "for a free one"
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
