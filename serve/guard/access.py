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
    meaning: str  # what the route does, for the documentation
    is_socket: bool = False  # a WebSocket; the others are HTTP
    # A request changes something, whatever its method, so pages of other sites may not send it.
    is_changing: bool = False
    # Old clients call this command with GET, so the route answers to GET besides POST.
    is_legacy_get: bool = False
    # The answer has no end, so the guard checks the login again and again.
    is_endless: bool = False


def _command(meaning: str, scope: AccessScope = "drive", *, is_legacy_get: bool = False) -> Access:
    return Access(scope, meaning, is_changing=True, is_legacy_get=is_legacy_get)


ROUTES: Mapping[str, Access] = {
    "/v1/act": Access("act", "Returns an action for one car, or for each of up to 256."),
    "/v1/drive": Access(
        "act",
        "WebSocket that takes observations and returns actions, in binary frames or as JSON.",
        is_socket=True,
        is_endless=True,
    ),
    "/v1/outcome": _command("Reports how a lap of a session went, for the rollout.", "act"),
    "/v1/models": Access("read", "Lists the versions of the registry, newest first."),
    "/v1/models/{version}": Access("read", "Shows one version with its settings and lineage."),
    "/v1/drift": Access(
        "read", "Compares the driving of the served versions with their evaluation."
    ),
    "/v1/drift.svg": Access("read", "Draws the newest window of laps beside the evaluation."),
    "/v1/rollout": Access("read", "Shows the newest rollout of a new version."),
    "/v1/rollout/command": _command("Starts, holds or ends a rollout.", "admin"),
    "/health": Access(None, "Shows that the live page runs, and for how long."),
    "/health/live": Access(None, "Answers 200 while the process runs."),
    "/health/ready": Access(None, "Answers 200 while a model acts, and 503 otherwise."),
    "/metrics": Access("read", "Returns the metrics of this process as Prometheus text."),
    "/openapi.json": Access("read", "Returns the OpenAPI document."),
    # Routes of the live page.
    "/": Access("read", "Shows the live page."),
    "/page/{path:path}": Access("read", "Returns a file of the live page."),
    "/live": Access(
        "read",
        "WebSocket with everything that the live page shows; a page also drives through it.",
        is_socket=True,
        is_endless=True,
    ),
    "/video_feed": Access("read", "Returns the road as motion JPEG.", is_endless=True),
    "/stats": Access("read", "Returns recent rewards, losses, rates and counts of the session."),
    "/list_models": Access("read", "Lists versions, saves of the run and files to load."),
    "/start": _command("Starts the car.", is_legacy_get=True),
    "/stop": _command("Stops the car.", is_legacy_get=True),
    "/reset": _command("Puts the car back to the start of its track.", is_legacy_get=True),
    "/toggle_control": _command(
        "Changes between the policy and a person as the driver.", is_legacy_get=True
    ),
    "/control": _command("Sets steering and throttle while a person drives."),
    "/track": _command("Goes to the next track, or to the track of a seed."),
    "/ghost": _command("Lets another policy drive along as a ghost, or removes the ghost."),
    "/try": _command("Returns the action of the policy for one observation."),
    "/save_model": _command(
        "Publishes the policy that drives as a new version.", "admin", is_legacy_get=True
    ),
    "/load_model": _command(
        "Loads a version, a save or a file as the policy that drives.",
        "admin",
        is_legacy_get=True,
    ),
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
