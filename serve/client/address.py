"""Where a server is and what it is told with each request: checked once, before any connection."""

import math
import re
import ssl
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from rlcar.errors import UserError

MOST_TIMEOUT_MS = 60_000.0
# What a server takes in a body of JSON, and in the address of a socket.
_BODY_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_SOCKET_NAME = re.compile(r"[ -~]{1,64}")
_TOKEN = re.compile(r"[!-~]+")


class ServerError(UserError):
    """A server that cannot be reached or does not let us in; only `check` raises it."""


class ServerAddress(NamedTuple):
    """A server, as one client speaks to it."""

    url: str  # http(s)://HOST:PORT/PREFIX, without a slash at its end
    token: str | None
    tls: ssl.SSLContext | None  # None: http, which has no certificates

    def headers(self, session: str) -> dict[str, str]:
        """What goes along with every request; a proxy finds the session's replica by the first."""
        headers = {"x-session-id": quote(session, safe=":")}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        return headers

    def socket_url(self, session: str) -> str:
        """The address of the session's socket: wss where the server is https."""
        scheme, rest = self.url.split("://", 1)
        socket_scheme = {"http": "ws", "https": "wss"}[scheme]
        return f"{socket_scheme}://{rest}/v1/drive?session={quote(session, safe=':')}"


def parse_address(url: str, token: str | None) -> ServerAddress:
    """Returns the address; raises ServerError for what is none, or a token that cannot be sent."""
    try:
        parts = urlsplit(url)
        is_server = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_server &= not re.search(r"[\s\x00-\x1f\x7f\\]", url)
        is_port = parts.port is None or parts.port > 0
        whole = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        httpx.URL(whole)
    except (ValueError, httpx.InvalidURL) as error:
        raise ServerError(f"{url} is no server's address ({error}): say http://HOST:PORT") from None
    if not (is_server and is_port) or parts.query or parts.fragment:
        raise ServerError(f"{url} is no server's address: say http://HOST:PORT or https://HOST")
    if parts.username is not None:
        raise ServerError("the address holds a user's name: give the token with token=, not there")
    if token is not None and not _TOKEN.fullmatch(token):
        raise ServerError(
            "the token is empty or holds a space, a line break or a letter beyond ASCII, which "
            "no header can carry: give it as `rlcar tokens create` showed it"
        )
    return ServerAddress(whole, token, _trusting() if parts.scheme == "https" else None)


def check_session(session: str, websocket: bool) -> str:
    """Returns the name of a session; raises ServerError for one that no server takes."""
    if _BODY_NAME.fullmatch(session):
        return session
    if not _SOCKET_NAME.fullmatch(session):
        raise ServerError(f"session {session!r}: a name has 1 to 64 plain ASCII characters")
    if not websocket:
        raise ServerError(
            f"session {session!r}: without websocket=True a name has letters, digits, and . _ : -"
        )
    return session


def check_timeout(timeout_ms: float) -> float:
    """Returns the timeout in seconds; raises ServerError for one that is no time to wait."""
    is_number = isinstance(timeout_ms, int | float) and not isinstance(timeout_ms, bool)
    if not is_number or not math.isfinite(timeout_ms) or not 0.0 < timeout_ms <= MOST_TIMEOUT_MS:
        raise ServerError(
            f"timeout_ms={timeout_ms}: give more than 0 and at most {MOST_TIMEOUT_MS:g} ms"
        )
    return timeout_ms / 1e3


def _trusting() -> ssl.SSLContext:
    """Trusts Mozilla's certificates, the machine's and those of SSL_CERT_FILE."""
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return context
