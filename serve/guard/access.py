"""The scope that each route needs: the one table for the guard, the routes and the metrics.

The guard answers 404 to a path that is not in this table, even if the router knows it.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

AccessScope = Literal["read", "act", "drive", "admin"]


class Access(NamedTuple):
    """How the guard treats a route."""

    scope: AccessScope | None  # None: no token is needed
    is_socket: bool = False  # a WebSocket; the others are HTTP
    # A request changes something, whatever its method, so pages of other sites may not send it.
    is_changing: bool = False
    # Old clients call this command with GET, so the route answers to GET besides POST.
    is_legacy_get: bool = False
    # The answer has no end, so the guard checks the login again and again.
    is_endless: bool = False


_COMMAND = Access("drive", is_changing=True)
_LEGACY_COMMAND = Access("drive", is_changing=True, is_legacy_get=True)
_LEGACY_ADMIN = Access("admin", is_changing=True, is_legacy_get=True)

ROUTES: Mapping[str, Access] = {
    "/v1/act": Access("act"),
    "/v1/drive": Access("act", is_socket=True, is_endless=True),
    "/v1/models": Access("read"),
    "/v1/models/{version}": Access("read"),
    "/health": Access(None),
    "/health/live": Access(None),
    "/health/ready": Access(None),
    "/metrics": Access("read"),
    "/openapi.json": Access("read"),
    # Routes of the live page.
    "/": Access("read"),
    "/page/{path:path}": Access("read"),
    "/live": Access("read", is_socket=True, is_endless=True),
    "/video_feed": Access("read", is_endless=True),
    "/stats": Access("read"),
    "/list_models": Access("read"),
    "/start": _LEGACY_COMMAND,
    "/stop": _LEGACY_COMMAND,
    "/reset": _LEGACY_COMMAND,
    "/toggle_control": _LEGACY_COMMAND,
    "/control": _COMMAND,
    "/track": _COMMAND,
    "/ghost": _COMMAND,
    "/try": _COMMAND,
    "/save_model": _LEGACY_ADMIN,
    "/load_model": _LEGACY_ADMIN,
}


class UnprintableError(ValueError):
    """The path contains control characters, line separators or other unprintable characters."""


def find_access(kind: str, path: str) -> Access | None:
    """Returns how to treat a decoded path, or None if there is no such route.

    `kind` is the type of the ASGI scope: http or websocket. Raises UnprintableError for a path that
    routers, proxies and logs interpret in different ways.
    """
    access = ROUTES.get(path)
    if access is None:
        if not path.isprintable():
            raise UnprintableError(path)
        route = route_of(path)
        if route is None:
            return None
        access = ROUTES[route]
    return access if access.is_socket == (kind == "websocket") else None


def route_of(path: str) -> str | None:
    """Returns the name in `ROUTES` of the route that a decoded path belongs to."""
    if path in ROUTES:
        return path
    return next((route for route, pattern in _PATTERNS if pattern.fullmatch(path)), None)


def legacy_methods(path: str) -> list[str]:
    """Returns the methods of a command: POST, and GET where old clients use it."""
    return ["POST", "GET"] if ROUTES[path].is_legacy_get else ["POST"]


def _pattern(route: str) -> re.Pattern[str]:
    """Compiles Starlette's notation: `{name}` is one segment, `{name:path}` any number of them."""
    parts = re.split(r"(\{[^}]*\})", route)
    kinds = (
        (".*" if part.endswith(":path}") else "[^/]+") if part.startswith("{") else re.escape(part)
        for part in parts
    )
    return re.compile("".join(kinds))


_PATTERNS = [(route, _pattern(route)) for route in ROUTES if "{" in route]
