"""The configuration of HAProxy as the front end of the real-time lane."""

import resource
from collections.abc import Iterator

import msgspec

from serve.guard.access import ROUTES
from serve.guard.limits import KEEP_ALIVE_TIMEOUT_S, MAX_HEADERS
from serve.settings import ServeSettings

GRACEFUL_TIMEOUT_S = 5  # for open requests, when the server stops
STOP_TIMEOUT_S = GRACEFUL_TIMEOUT_S + 1.0  # the application has answered open requests before
APPLICATION_SOCKET = "application"
ABOVE_LIMIT = 16  # connections of an address above its limit that are answered with an error
_HEALTH_CONNECTIONS = 16
_OTHER_FILES = 100
# After a burst of requests most connections to the application close soon.
_IDLE = "pool-max-conn 64 pool-purge-delay 1s"
_SERVER = f"    server application unix@{APPLICATION_SOCKET} {_IDLE}"
_SEND_BUFFER_BYTES = 64 * 1024


def front_config(settings: ServeSettings, listener: int) -> str:
    """Returns the configuration file.

    HAProxy inherits `listener`, the file descriptor of a bound socket. uvicorn listens at the Unix
    socket `APPLICATION_SOCKET` in the folder in which HAProxy runs. Every state of a connection has
    a timeout. HAProxy limits the connections of an address; the application limits the requests of
    a token.
    """
    return "\n".join(
        [
            "global",
            f"    maxconn {_max_connections(settings)}",
            "    nbthread 1",
            f"    hard-stop-after {STOP_TIMEOUT_S:.0f}s",
            f"    tune.http.maxhdr {MAX_HEADERS + 1}",
            # HAProxy reserves 1 KiB of it for headers that it adds.
            f"    tune.bufsize {settings.headers_bytes + 2048}",
            # Otherwise the kernel buffers megabytes of answers for a client that does not read.
            f"    tune.sndbuf.client {_SEND_BUFFER_BYTES}",
            "",
            "defaults",
            "    mode http",
            "    timeout connect 2s",
            f"    timeout http-request {_ms(settings.headers_timeout_s)}",
            f"    timeout http-keep-alive {KEEP_ALIVE_TIMEOUT_S}s",
            f"    timeout client {_ms(settings.write_timeout_s)}",
            "    timeout server 60s",
            f"    timeout tunnel {_ms(2 * settings.socket_idle_s)}",
            "    timeout client-fin 5s",
            "    timeout server-fin 5s",
            "    timeout queue 1s",
            "    option http-no-delay",
            "    retry-on conn-failure",
            *(f"    http-error {error}" for error in _errors()),
            "",
            "frontend clients",
            # Without `proto h1` a client could switch to HTTP/2, which has limits of its own.
            f"    bind fd@{listener} proto h1",
            "    stick-table type ipv6 size 100k expire 2m store conn_cur",
            "    acl has_body req.hdr(content-length) -m found",
            "    acl has_body req.hdr(transfer-encoding) -m found",
            f"    acl is_health path {_health_paths()}",
            *_address_rules(settings),
            "    http-request deny deny_status 400 if !{ req.ver 1.0 1.1 }",
            # A body that never arrives must not occupy a connection of the application.
            f"    http-request wait-for-body time {_ms(settings.body_timeout_s)} if has_body",
            "    http-request set-header x-forwarded-for %[src]",
            "    http-request del-header x-forwarded-proto",
            "    use_backend health if is_health !has_body",
            "    default_backend policy",
            "",
            "backend policy",
            "    http-reuse always",
            f"{_SERVER} maxconn {settings.connections}",
            "",
            # Probes have reserved connections, so they are answered when all others are busy.
            "backend health",
            "    http-reuse always",
            f"{_SERVER} maxconn {_HEALTH_CONNECTIONS}",
            "",
        ]
    )


def _address_rules(settings: ServeSettings) -> list[str]:
    """Limits connections by address, and takes a client's address from trusted proxies."""
    trusted = " ".join(settings.trusted_proxies)
    limit = settings.connections_per_address
    body = _json_text("too many connections from this address")
    rules = [f"    acl is_trusted src {trusted}"] if trusted else []
    unless = " unless is_trusted" if trusted else ""
    return [
        *rules,
        # A client with one IPv6 address usually has a whole network of 64 bits.
        f"    tcp-request connection track-sc0 src,ipmask(32,64){unless}",
        # Health checks are answered above the limit, up to a few connections.
        f"    tcp-request connection reject if {{ sc0_conn_cur gt {limit + ABOVE_LIMIT} }}",
        f"    http-request deny deny_status 429 content-type application/json string {body} "
        f"hdr retry-after 1 hdr connection close if {{ sc0_conn_cur gt {limit} }} !is_health",
        *(["    http-request set-src hdr_ip(x-forwarded-for,-1) if is_trusted"] if trusted else []),
    ]


def _errors() -> Iterator[str]:
    # Without these, HAProxy answers late headers and invalid HTTP with its own HTML pages.
    sentences = {
        400: "the request is not valid HTTP/1.1",
        408: "the request did not arrive in time",
        502: "the application ended the connection",
        503: "the server is busy or starting",
        504: "the application did not answer in time",
    }
    for status, sentence in sentences.items():
        body = _json_text(sentence)
        retry = " hdr retry-after 1" if status == 503 else ""
        yield f"status {status} content-type application/json string {body}{retry}"


def _json_text(error: str) -> str:
    """Returns the JSON body of an error, quoted for HAProxy."""
    return f"'{msgspec.json.encode({'error': error}).decode()}'"


def _max_connections(settings: ServeSettings) -> int:
    """Returns how many connections HAProxy accepts; each needs two file descriptors."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed == resource.RLIM_INFINITY:
        return settings.front_connections
    return max(1, min(settings.front_connections, (allowed - _OTHER_FILES) // 2))


def _health_paths() -> str:
    return " ".join(path for path, access in ROUTES.items() if access.scope is None)


def _ms(time_s: float) -> str:
    return f"{max(1, round(1e3 * time_s))}ms"
