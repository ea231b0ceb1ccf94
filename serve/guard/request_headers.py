"""What the guard reads from the headers of a request."""

import base64
import binascii
import functools
import ipaddress
from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from serve.guard.limits import CLOSE, RefusedError

# More than one of these, and two programs may read two different requests.
_SINGLE = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"origin", b"content-type"}
)


def headers_of(scope: MutableMapping[str, Any]) -> dict[bytes, bytes]:
    """Returns the headers by name; raises RefusedError where two programs may disagree."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers:
            if name in _SINGLE:
                raise RefusedError(400, f"more than one header {name.decode('latin-1')}", CLOSE)
            value = headers[name] + (b"; " if name == b"cookie" else b", ") + value
        headers[name] = value
    if b"content-length" in headers and b"transfer-encoding" in headers:
        raise RefusedError(400, "both Content-Length and Transfer-Encoding", CLOSE)
    return headers


@functools.lru_cache(maxsize=4096)
def client_of(address: str) -> str:
    """Returns what counts as one client: an IPv4 address, or an IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.is_loopback or parsed.ipv4_mapped is not None:
        return address
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


def has_body(scope: MutableMapping[str, Any]) -> bool:
    """Whether a body comes with the request."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def password_of(credentials: str) -> str:
    """Returns the token of `name:token` in base64; any name is accepted."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def cookie_of(headers: dict[bytes, bytes], name: str) -> str | None:
    """Returns the value of a cookie, or None without it."""
    try:
        jar = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return None
    return jar[name].value if name in jar else None
