"""Recognises requests that a browser sends for a page of another origin."""

import functools
import re
from collections.abc import Mapping

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")


@functools.lru_cache(maxsize=256)
def host_name(host: str) -> str | None:
    """Returns the name in a Host header without its port, or None if the header is invalid."""
    match = _HOST.fullmatch(host)
    return match[1].lower().strip("[]") if match else None


def is_cross_origin(headers: Mapping[bytes, bytes], host: str) -> bool:
    """Whether the headers say that a page of another origin sent the request.

    Sec-Fetch-Site is `none` if the browser's user sent it, by the address bar or a bookmark. A
    request with none of the three headers comes from a program such as curl, because browsers send
    Sec-Fetch-Site to every https address and to loopback addresses.
    """
    if headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
        return True
    if b"origin" not in headers and b"referer" not in headers:
        return False
    pages = [headers[name] for name in (b"origin", b"referer") if name in headers]
    addresses = [page.decode("latin-1").lower().partition("://")[2] for page in pages]
    return any(address.partition("/")[0] != host.lower() for address in addresses)
