"""The live page's routes: the page, its stream, its video and its commands."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from rlcar.errors import RegistryUnavailableError, UserError
from serve.api.schema import RequestError, require_uncompressed
from serve.guard.access import legacy_methods
from serve.live.commands import (
    MAX_FILE_CHARACTERS,
    ControlInput,
    GhostRequest,
    SaveRequest,
    TrackRequest,
    TryRequest,
)
from serve.live.loaded_policy import first_action
from serve.live.manual_control import ControlTakenError
from serve.live.scene import SceneDrive
from serve.live.session import NO_POLICY, LiveSession
from serve.live.video import BOUNDARY, MAX_WATCHING, MAX_WATCHING_PER_OWNER, VideoFeed
from serve.live.viewer_socket import serve_viewer

PAGE = Path(__file__).with_name("page")
VIEWER_HEADER = "x-rlcar-viewer"  # the key that the stream's hello message gave to the page
_DEPRECATED = {"Deprecation": "@1763683200", "Link": '</>; rel="deprecation"'}

Handler = Callable[[LiveSession, Request], Awaitable[dict[str, object]]]
T = TypeVar("T")


def live_routes(live: LiveSession, *, legacy_get: bool = True) -> list[BaseRoute]:
    """Returns the routes of the page, for `serve.app.make_app` with `live.running`.

    With `legacy_get` the commands that old clients call with GET answer to it, with a deprecation
    header. Leave it out where browsers log in.
    """
    feed = VideoFeed(live)
    commands = {
        "/start": _start,
        "/stop": _stop,
        "/reset": _reset,
        "/toggle_control": _toggle,
        "/save_model": _save,
        "/load_model": _load,
        "/control": _control,
        "/track": _track,
        "/ghost": _ghost,
        "/try": _try,
    }
    queries = {"/stats": _stats, "/list_models": _list_models, "/health": _health}
    return [
        Route("/", _page, methods=["GET"]),
        Route("/video_feed", _video(live, feed), methods=["GET"]),
        *(
            Route(
                path,
                _make_route(live, handler),
                methods=legacy_methods(path) if legacy_get else ["POST"],
            )
            for path, handler in commands.items()
        ),
        *(
            Route(path, _make_route(live, handler), methods=["GET"])
            for path, handler in queries.items()
        ),
        WebSocketRoute("/live", _stream(live)),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]


async def _page(request: Request) -> Response:
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


async def _start(live: LiveSession, request: Request) -> dict[str, object]:
    live.start()
    return {"status": "started"}


async def _stop(live: LiveSession, request: Request) -> dict[str, object]:
    live.stop()
    return {"status": "stopped"}


async def _reset(live: LiveSession, request: Request) -> dict[str, object]:
    live.reset()
    return {"status": "reset"}


async def _toggle(live: LiveSession, request: Request) -> dict[str, object]:
    return {"status": "toggled", "manual_control": live.toggle_control()}


async def _control(live: LiveSession, request: Request) -> dict[str, object]:
    live.race_drive("driving by hand")
    command = await _read_body(request, ControlInput)
    live.manual_control.steer(command.steering, command.throttle)
    return {"status": "ok"}


async def _track(live: LiveSession, request: Request) -> dict[str, object]:
    command = await _read_body(request, TrackRequest)
    return {"status": "track", "seed": live.go_to_track(command.seed)}


async def _ghost(live: LiveSession, request: Request) -> dict[str, object]:
    command = await _read_body(request, GhostRequest)
    return {"status": "ghost", "policy": await live.set_ghost(command.file)}


async def _save(live: LiveSession, request: Request) -> dict[str, object]:
    command = await _read_body(request, SaveRequest)
    return {"status": "saved", "version": await live.save(command.description)}


async def _load(live: LiveSession, request: Request) -> dict[str, object]:
    file = request.query_params.get("file", "")
    if not file:
        raise UserError("load_model needs ?file=, a version of /list_models, e.g. file=champion")
    if len(file) > MAX_FILE_CHARACTERS:
        raise UserError(
            f"file has {len(file)} characters: no version has a name of more than "
            f"{MAX_FILE_CHARACTERS}"
        )
    return {"status": "loaded", "policy": await live.load(file)}


async def _try(live: LiveSession, request: Request) -> dict[str, object]:
    command = await _read_body(request, TryRequest)
    policy = live.race_drive("trying the policy").policy
    if policy is None:
        raise UserError(NO_POLICY)
    steering, throttle = first_action(policy.loaded, command.observation)
    return {"steering": steering, "throttle": throttle, "policy": policy.loaded.label}


async def _stats(live: LiveSession, request: Request) -> dict[str, object]:
    return live.stats()


async def _list_models(live: LiveSession, request: Request) -> dict[str, object]:
    return await live.list_models()


async def _health(live: LiveSession, request: Request) -> dict[str, object]:
    return {"status": "healthy", "uptime_s": round(live.uptime_s, 1)}


# `/try` is a command without effect on the session, so it does not need control.
_NEED_CONTROL = frozenset({_start, _stop, _reset, _toggle, _control, _track, _ghost, _save, _load})


def _make_route(live: LiveSession, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Makes a route: its client takes control if needed, and errors become JSON."""

    async def route(request: Request) -> Response:
        needs_control = handler in _NEED_CONTROL
        headers = _DEPRECATED if request.method == "GET" and needs_control else {}
        try:
            if needs_control:
                live.take_control(_client(live, request))
            return JSONResponse(await handler(live, request), headers=headers)
        except ControlTakenError as error:
            return JSONResponse({"error": str(error)}, 409, headers)
        except ClientDisconnect:
            return Response(status_code=400)
        except RegistryUnavailableError as error:
            return JSONResponse({"error": str(error)}, 503, headers)
        except RequestError as error:
            return JSONResponse({"error": str(error)}, error.status, headers)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 400, headers)

    return route


def _client(live: LiveSession, request: Request) -> str:
    """Names the sender: the page whose key the request carries, else the token or address."""
    viewer = live.viewers.find(request.headers.get(VIEWER_HEADER, ""))
    if viewer is not None:
        return viewer.key
    return f"request:{_owner(request)}"


def _owner(request: Request) -> str:
    """Returns the token's name, or the address."""
    identity = request.scope.get("rlcar.identity")
    if identity is not None:
        return str(identity.name)
    return request.client.host if request.client else "unknown"


async def _read_body(request: Request, kind: type[T]) -> T:
    """Parses a JSON body strictly; an empty one is `{}`. Raises UserError if it is invalid.

    The guard limits its size.
    """
    require_uncompressed(request.headers.raw)
    body = await request.body()
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"the body is invalid for {request.url.path}: {error}") from error


class _VideoResponse(StreamingResponse):
    """The video for one client, which is counted until the response ends, however it ends."""

    def __init__(self, feed: VideoFeed, owner: str):
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        super().__init__(feed.parts(), 200, {"Cache-Control": "no-store"}, kind)
        self._feed, self._owner = feed, owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # Starlette would answer as for GET, and the body has no end
            await Response(b"", self.status_code, self.headers)(scope, receive, send)
            return
        with self._feed.watched_by(self._owner):
            await super().__call__(scope, receive, send)


def _video(live: LiveSession, feed: VideoFeed) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        if isinstance(live.drive, SceneDrive) and live.drive.problem is not None:
            return JSONResponse({"error": f"there are no pictures: {live.drive.problem}"}, 404)
        owner = _owner(request)
        if feed.is_full(owner):
            error = (
                f"the video has at most {MAX_WATCHING} viewers, and {MAX_WATCHING_PER_OWNER} of "
                "one token or address: use the page's own stream"
            )
            return JSONResponse({"error": error}, 429, {"Retry-After": "5"})
        return _VideoResponse(feed, owner)

    return route


def _stream(live: LiveSession) -> Callable[[WebSocket], Awaitable[None]]:
    async def route(socket: WebSocket) -> None:
        await serve_viewer(live, socket)

    return route
