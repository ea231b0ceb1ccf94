"""The WebSocket of one viewer: frames and messages out, the driver's input in."""

import asyncio
import contextlib

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from rlcar.errors import UserError
from serve.guard.limits import RateLimit
from serve.live.commands import ControlMessage, LeaveMessage, TakeMessage
from serve.live.session import LiveSession
from serve.live.viewers import MAX_VIEWERS, MAX_VIEWERS_PER_OWNER, Viewer, make_message

_MAX_MESSAGE_BYTES = 1024
_MAX_BAD_MESSAGES = 20  # with one more the socket is closed
_MESSAGES_PER_S = 60.0  # the page sends 20 during manual driving
_TRY_AGAIN_LATER, _POLICY_VIOLATION = 1013, 1008  # close codes of RFC 6455 and its registry
_DECODER = msgspec.json.Decoder(ControlMessage | TakeMessage | LeaveMessage)


async def serve_viewer(live: LiveSession, socket: WebSocket) -> None:
    """Serves one viewer until it leaves."""
    identity = socket.scope.get("rlcar.identity")
    owner = "" if identity is None else identity.name
    if len(live.viewers) >= MAX_VIEWERS or live.viewers.count_of(owner) >= MAX_VIEWERS_PER_OWNER:
        reason = f"limit: {MAX_VIEWERS} pages, {MAX_VIEWERS_PER_OWNER} of one token or address"
        await socket.close(_TRY_AGAIN_LATER, reason)
        return
    viewer = Viewer(identity is None or identity.allows("drive"), owner)
    # It is counted before the first await: many that connect at once must not all find a place.
    live.add_viewer(viewer)
    try:
        await socket.accept()
        sending = asyncio.create_task(_send(socket, viewer))
        try:
            await _receive(live, socket, viewer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        live.remove_viewer(viewer)


async def _send(socket: WebSocket, viewer: Viewer) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it may leave during a send
        while not viewer.is_gone:
            for item in await viewer.next_news():
                if isinstance(item, str):
                    await socket.send_text(item)
                else:
                    await socket.send_bytes(item)
        await socket.close(_TRY_AGAIN_LATER, "too slow")


async def _receive(live: LiveSession, socket: WebSocket, viewer: Viewer) -> None:
    bad_messages = 0
    rate = RateLimit(_MESSAGES_PER_S, 2 * _MESSAGES_PER_S)
    while bad_messages <= _MAX_BAD_MESSAGES:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        # Not reading on slows the sender down: each message may be sent on to every viewer.
        await rate.slow_down(viewer.key)
        try:
            _handle(live, viewer, message.get("text") or message.get("bytes") or b"")
        except UserError as error:
            viewer.send_message(make_message("error", error=str(error)))
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            bad_messages += 1
            viewer.send_message(make_message("error", error=f"invalid message: {error}"))
    with contextlib.suppress(RuntimeError):
        await socket.close(_POLICY_VIOLATION, "too many bad messages")


def _handle(live: LiveSession, viewer: Viewer, message: str | bytes) -> None:
    if len(message) > _MAX_MESSAGE_BYTES:
        raise msgspec.ValidationError(f"it has more than {_MAX_MESSAGE_BYTES} bytes")
    command = _DECODER.decode(message)
    if isinstance(command, LeaveMessage):
        if live.manual_control.release(viewer.key):
            live.broadcast_state()
        return
    if not viewer.may_drive:
        raise UserError("this login may watch, but not drive: use a token with the scope drive")
    if isinstance(command, TakeMessage):
        live.take_control(viewer.key)
    elif live.manual_control.driver == viewer.key:  # input of other viewers is ignored
        live.take_control(viewer.key)
        live.manual_control.steer(command.steering, command.throttle)
