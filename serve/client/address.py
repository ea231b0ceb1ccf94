"""The server's address and the headers of each request, checked once, before any connection."""

import math
import re
import ssl
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from rlcar.errors import UserError

MAX_TIMEOUT_MS = 60_000.0
# Session names that a server accepts in a JSON body, and in the address of a WebSocket.
_BODY_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_SOCKET_NAME = re.compile(r"[ -~]{1,64}")
_TOKEN = re.compile(r"[!-~]+")


class ServerError(UserError):
    """The server cannot be reached or refuses the client, or the client's options are invalid."""


class ServerAddress(NamedTuple):
    """A server and the token of one client."""

    url: str  # http(s)://HOST:PORT/PREFIX, without a trailing slash
    token: str | None
    tls: ssl.SSLContext | None  # None: http, which has no certificates

    def headers(self, session: str) -> dict[str, str]:
        """Returns the headers of every request; x-session-id leads a proxy to the replica."""
        headers = {"x-session-id": quote(session, safe=":")}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        return headers

    def socket_url(self, session: str) -> str:
        """Returns the address of the session's WebSocket: wss if the server is https."""
        scheme, rest = self.url.split("://", 1)
        socket_scheme = {"http": "ws", "https": "wss"}[scheme]
        return f"{socket_scheme}://{rest}/v1/drive?session={quote(session, safe=':')}"


def parse_address(url: str, token: str | None) -> ServerAddress:
    """Returns the address; raises ServerError if it or the token is invalid."""
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_server &= not re.search(r"[\s\x00-\x1f\x7f\\]", url)
        is_port = parts.port is None or parts.port > 0
        whole = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        httpx.URL(whole)
    except (ValueError, httpx.InvalidURL) as error:
        raise ServerError(
            f"{url} is not the address of a server ({error}): give http://HOST:PORT"
        ) from None
    if not (is_server and is_port) or parts.query or parts.fragment:
        raise ServerError(
            f"{url} is not the address of a server: give http://HOST:PORT or https://HOST"
        )
    if parts.username is not None:
        raise ServerError("the address contains a user name: give the token with token= instead")
    if token is not None and not _TOKEN.fullmatch(token):
        raise ServerError(
            "the token is empty or contains a space, a line break or a non-ASCII character: give "
            "it as `rlcar tokens create` showed it"
        )
    return ServerAddress(whole, token, _make_tls() if parts.scheme == "https" else None)


def check_session(session: str, websocket: bool) -> str:
    """Returns the name of a session; raises ServerError if no server accepts it."""
    if _BODY_NAME.fullmatch(session):
        return session
    if not _SOCKET_NAME.fullmatch(session):
        raise ServerError(f"session {session!r}: a name has 1 to 64 printable ASCII characters")
    if not websocket:
        raise ServerError(
            f"session {session!r}: without websocket=True use only letters, digits, and . _ : -"
        )
    return session


def check_timeout(timeout_ms: float) -> float:
    """Returns the timeout in seconds; raises ServerError if it is invalid."""
    is_number = isinstance(timeout_ms, int | float) and not isinstance(timeout_ms, bool)
    if not is_number or not math.isfinite(timeout_ms) or not 0.0 < timeout_ms <= MAX_TIMEOUT_MS:
        raise ServerError(
            f"timeout_ms={timeout_ms}: give more than 0 and at most {MAX_TIMEOUT_MS:g} ms"
        )
    return timeout_ms / 1e3


def check_safe_action(action: Sequence[float] | None) -> Sequence[float] | None:
    """Returns the safe action; raises ServerError unless its numbers are from -1 to 1."""
    if action is None:
        return None
    if not len(action) or not all(-1.0 <= number <= 1.0 for number in action):
        raise ServerError(f"safe_action={list(action)}: give one or more numbers from -1 to 1")
    return tuple(float(number) for number in action)


def _make_tls() -> ssl.SSLContext:
    """Trusts Mozilla's certificates, those of the machine and those of SSL_CERT_FILE."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context
