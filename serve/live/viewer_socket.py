"""One viewer's WebSocket: frames and sentences out, pedals in."""

import asyncio
import contextlib
from typing import Annotated

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from rlcar.errors import UserError
from serve.guard.limits import RateLimit
from serve.live.session import LiveSession
from serve.live.viewers import MOST_VIEWERS, MOST_VIEWERS_EACH, Viewer, sentence

_MOST_BYTES = 1024
_MOST_BAD = 20  # messages, then the socket is closed
_MESSAGES_PER_S = 60.0  # The page sends 20 while somebody drives by hand.
_TRY_AGAIN_LATER, _BROKE_THE_RULES = 1013, 1008

_Unit = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]


class _Control(msgspec.Struct, tag="control", forbid_unknown_fields=True):
    steering: _Unit
    throttle: _Unit


class _Take(msgspec.Struct, tag="take", forbid_unknown_fields=True):
    """Asks for the wheel."""


class _Leave(msgspec.Struct, tag="leave", forbid_unknown_fields=True):
    """Gives it back."""


_DECODER = msgspec.json.Decoder(_Control | _Take | _Leave)


async def talk(live: LiveSession, socket: WebSocket) -> None:
    """Serves one viewer until it goes."""
    identity = socket.scope.get("rlcar.identity")
    owner = "" if identity is None else identity.name
    if len(live.viewers) >= MOST_VIEWERS or live.viewers.count_of(owner) >= MOST_VIEWERS_EACH:
        most = f"{MOST_VIEWERS} already watch, or {MOST_VIEWERS_EACH} of yours"
        await socket.close(_TRY_AGAIN_LATER, most)
        return
    viewer = Viewer(identity is None or identity.allows("drive"), owner)
    # Counted before anything is awaited: many that come at once must not all find a free place.
    live.greet(viewer)
    try:
        await socket.accept()
        sending = asyncio.create_task(_send(socket, viewer))
        try:
            await _listen(live, socket, viewer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        live.part(viewer)


async def _send(socket: WebSocket, viewer: Viewer) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it went while we wrote
        while not viewer.is_gone:
            for one in await viewer.news():
                await (socket.send_text(one) if isinstance(one, str) else socket.send_bytes(one))
        await socket.close(_TRY_AGAIN_LATER, "too slow")


async def _listen(live: LiveSession, socket: WebSocket, viewer: Viewer) -> None:
    bad = 0
    rate = RateLimit(_MESSAGES_PER_S, 2 * _MESSAGES_PER_S)
    while bad <= _MOST_BAD:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        # Reading no further slows a sender down; each message may be told to every viewer.
        await rate.slow_down(viewer.key)
        try:
            _obey(live, viewer, message.get("text") or message.get("bytes") or b"")
        except UserError as error:
            viewer.tell(sentence("error", error=str(error)))
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            bad += 1
            viewer.tell(sentence("error", error=f"that message is not one of ours: {error}"))
    with contextlib.suppress(RuntimeError):
        await socket.close(_BROKE_THE_RULES, "too many bad messages")


def _obey(live: LiveSession, viewer: Viewer, message: str | bytes) -> None:
    if len(message) > _MOST_BYTES:
        raise msgspec.ValidationError(f"it has more than {_MOST_BYTES} bytes")
    said = _DECODER.decode(message)
    if isinstance(said, _Leave):
        if live.manual_control.leave(viewer.key):
            live.broadcast_state()
        return
    if not viewer.may_drive:
        raise UserError("your login may watch, not drive")
    if isinstance(said, _Take):
        live.take_control(viewer.key)
    elif live.manual_control.driver == viewer.key:  # a spectator's pedals are connected to nothing
        live.take_control(viewer.key)
        live.manual_control.steer(said.steering, said.throttle)
