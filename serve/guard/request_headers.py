"""Parses the request headers that the guard needs."""

import base64
import binascii
import functools
import ipaddress
from http.cookies import CookieError, SimpleCookie

from starlette.types import Scope

from serve.guard.limits import CLOSE, RefusedError

# If one of these is repeated, a proxy and the server may interpret the request differently.
_SINGLE = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"origin", b"content-type"}
)


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Returns the headers by name; raises RefusedError if they are ambiguous."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers:
            if name in _SINGLE:
                raise RefusedError(
                    400, f"the header {name.decode('latin-1')} is given more than once", CLOSE
                )
            value = headers[name] + (b"; " if name == b"cookie" else b", ") + value
        headers[name] = value
    if b"content-length" in headers and b"transfer-encoding" in headers:
        raise RefusedError(
            400, "the request has both Content-Length and Transfer-Encoding: send one", CLOSE
        )
    return headers


@functools.lru_cache(maxsize=4096)
def client_of(address: str) -> str:
    """Returns the name of a client: its IPv4 address, or its IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.is_loopback or parsed.ipv4_mapped is not None:
        return address
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


def has_body(scope: Scope) -> bool:
    """Whether the request has a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def password_of(credentials: str) -> str:
    """Returns the token in base64-encoded `name:token`; any name is accepted."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def cookie_of(headers: dict[bytes, bytes], name: str) -> str | None:
    """Returns the value of a cookie, or None."""
    try:
        jar = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return None
    return jar[name].value if name in jar else None
