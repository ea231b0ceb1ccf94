"""The live page's routes, to be mounted in any Starlette application."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from rlcar.errors import RegistryUnavailableError, UserError
from serve.api.schema import RequestError, require_uncompressed
from serve.guard.access import legacy_methods
from serve.live.manual_control import ControlTakenError
from serve.live.metrics import metrics_text
from serve.live.policies import first_action
from serve.live.session import LiveSession
from serve.live.video import BOUNDARY, MOST_WATCHING, MOST_WATCHING_EACH, VideoFeed
from serve.live.viewer_socket import talk

PAGE = Path(__file__).with_name("page")
VIEWER_HEADER = "x-rlcar-viewer"  # the key that the stream's hello gave this page
_MOST_BODY_BYTES = 4096
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_MOST_FILE_CHARACTERS = 200
_DEPRECATED = {"Deprecation": "@1763683200", "Link": '</>; rel="deprecation"'}

Unit = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Pedals(msgspec.Struct):
    """What a driver asks for."""

    steering: Unit
    throttle: Unit


class Question(msgspec.Struct):
    """An observation to try."""

    observation: Annotated[list[Share], msgspec.Meta(min_length=1, max_length=64)]


class TrackChoice(msgspec.Struct):
    """Which road is next."""

    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] | None = None


class GhostChoice(msgspec.Struct):
    """Who drives along; nobody when it is null."""

    file: Annotated[str, msgspec.Meta(min_length=1, max_length=_MOST_FILE_CHARACTERS)] | None = None


class SaveWish(msgspec.Struct):
    """What a new version is called."""

    description: Annotated[str, msgspec.Meta(max_length=200)] = "saved on the live page"


Answer = Callable[[LiveSession, Request], Awaitable[dict[str, Any]]]


def live_routes(live: LiveSession, *, legacy_get: bool = True) -> list[BaseRoute]:
    """Returns the page, its stream and its commands; `live.running()` must be around them.

    With `legacy_get` the commands that old clients call with GET answer to it, deprecated; leave
    it out where a browser may be logged in.
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
    looks = {"/stats": _stats, "/list_models": _list_models, "/health": _health}
    return [
        Route("/", _page, methods=["GET"]),
        Route("/video_feed", _video(feed), methods=["GET"]),
        *(
            Route(
                path,
                _answering(live, answer),
                methods=legacy_methods(path) if legacy_get else ["POST"],
            )
            for path, answer in commands.items()
        ),
        *(Route(path, _answering(live, look), methods=["GET"]) for path, look in looks.items()),
        Route("/metrics", _metrics(live), methods=["GET"]),
        WebSocketRoute("/live", _stream(live)),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]


async def _page(request: Request) -> Response:
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


async def _start(live: LiveSession, request: Request) -> dict[str, Any]:
    live.start()
    return {"status": "started"}


async def _stop(live: LiveSession, request: Request) -> dict[str, Any]:
    live.stop()
    return {"status": "stopped"}


async def _reset(live: LiveSession, request: Request) -> dict[str, Any]:
    live.reset()
    return {"status": "reset"}


async def _toggle(live: LiveSession, request: Request) -> dict[str, Any]:
    return {"status": "toggled", "manual_control": live.toggle_control()}


async def _control(live: LiveSession, request: Request) -> dict[str, Any]:
    pedals = await _body(request, Pedals)
    live.manual_control.steer(pedals.steering, pedals.throttle)
    return {"status": "ok"}


async def _track(live: LiveSession, request: Request) -> dict[str, Any]:
    choice = await _body(request, TrackChoice)
    return {"status": "track", "seed": live.go_to_track(choice.seed)}


async def _ghost(live: LiveSession, request: Request) -> dict[str, Any]:
    choice = await _body(request, GhostChoice)
    return {"status": "ghost", "policy": await live.set_ghost(choice.file)}


async def _save(live: LiveSession, request: Request) -> dict[str, Any]:
    wish = await _body(request, SaveWish)
    return {"status": "saved", "version": await live.save(wish.description)}


async def _load(live: LiveSession, request: Request) -> dict[str, Any]:
    file = request.query_params.get("file", "")
    if not file:
        raise UserError("load_model needs ?file=, a version of /list_models, e.g. file=champion")
    if len(file) > _MOST_FILE_CHARACTERS:
        raise UserError(f"file has {len(file)} characters: no version is called so")
    return {"status": "loaded", "policy": await live.load(file)}


async def _try(live: LiveSession, request: Request) -> dict[str, Any]:
    question = await _body(request, Question)
    wheel = live.drive.policy
    if wheel is None:
        raise UserError("there is no policy yet: wait for the run's first save, or load one")
    steering, throttle = first_action(wheel.loaded, question.observation)
    return {"steering": steering, "throttle": throttle, "policy": wheel.loaded.label}


async def _stats(live: LiveSession, request: Request) -> dict[str, Any]:
    return live.stats()


async def _list_models(live: LiveSession, request: Request) -> dict[str, Any]:
    return await live.list_models()


async def _health(live: LiveSession, request: Request) -> dict[str, Any]:
    return {"status": "healthy", "uptime_s": round(live.uptime_s, 1)}


_CHANGES = frozenset({_start, _stop, _reset, _toggle, _control, _track, _ghost, _save, _load})


def _answering(live: LiveSession, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """Makes a route: who asks must hold the wheel, and what is wrong is said in one sentence."""

    async def route(request: Request) -> Response:
        headers = _DEPRECATED if request.method == "GET" and answer in _CHANGES else {}
        try:
            if answer in _CHANGES:
                live.take_control(_client(live, request))
            return JSONResponse(await answer(live, request), headers=headers)
        except ControlTakenError as error:
            return JSONResponse({"error": str(error)}, 409, headers)
        except _TooLargeError as error:
            return JSONResponse({"error": str(error)}, 413, {**headers, "Connection": "close"})
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
    """Names who asks: the page whose key comes along, else the login or address."""
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


class _TooLargeError(UserError):
    """A body over the limit."""


async def _body(request: Request, kind: type[Any]) -> Any:
    """Reads a small JSON body strictly; an empty one is `{}`. Raises UserError for any other."""
    require_uncompressed(request.headers.raw)
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > _MOST_BODY_BYTES:
        raise _TooLargeError(f"a body here has at most {_MOST_BODY_BYTES} bytes")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BODY_BYTES:
            raise _TooLargeError(f"a body here has at most {_MOST_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"the body is not what {request.url.path} takes: {error}") from error


class _VideoResponse(StreamingResponse):
    """The video for one client, which is counted until the response ends, however it ends."""

    def __init__(self, feed: VideoFeed, owner: str):
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        super().__init__(feed.parts(), 200, {"Cache-Control": "no-store"}, kind)
        self._feed, self._owner = feed, owner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "HEAD":  # Starlette answers it as GET, and this body has no end.
            await Response(b"", self.status_code, self.headers)(scope, receive, send)
            return
        with self._feed.watched_by(self._owner):
            await super().__call__(scope, receive, send)


def _video(feed: VideoFeed) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        owner = _owner(request)
        if feed.is_full(owner):
            error = f"{MOST_WATCHING} already watch the video, or {MOST_WATCHING_EACH} of yours"
            body = {"error": f"{error}: use the page's own stream"}
            return JSONResponse(body, 429, {"Retry-After": "5"})
        return _VideoResponse(feed, owner)

    return route


def _metrics(live: LiveSession) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        return Response(metrics_text(live), media_type=_PROMETHEUS)

    return route


def _stream(live: LiveSession) -> Callable[[WebSocket], Awaitable[None]]:
    async def route(socket: WebSocket) -> None:
        await talk(live, socket)

    return route
