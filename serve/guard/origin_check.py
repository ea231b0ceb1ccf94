"""Tells what a browser sends for another site's page from what its user or a program sends."""

import functools
import re
from collections.abc import Mapping

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")


@functools.lru_cache(maxsize=256)
def host_name(host: str) -> str | None:
    """Returns the name in a Host header, or None where there is none."""
    match = _HOST.fullmatch(host)
    return match[1].lower().strip("[]") if match else None


def is_cross_origin(headers: Mapping[bytes, bytes], host: str) -> bool:
    """Returns whether a browser says that a page of another origin asks.

    Sec-Fetch-Site is `none` when the browser's user asked, by the address bar or a bookmark. A
    request with none of the three headers comes from a program such as curl, for browsers send
    Sec-Fetch-Site to every https address and to this machine's own.
    """
    if headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
        return True
    if b"origin" not in headers and b"referer" not in headers:
        return False
    pages = [headers[name] for name in (b"origin", b"referer") if name in headers]
    places = [page.decode("latin-1").lower().partition("://")[2] for page in pages]
    return any(place.partition("/")[0] != host.lower() for place in places)
