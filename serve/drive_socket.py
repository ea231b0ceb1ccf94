"""`WS /v1/drive`: drives one or several cars over one connection, in JSON or binary frames."""

import asyncio

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from serve.api.frames import pack_answer, unpack_request
from serve.api.schema import RequestError, check_request, decode_act, encode
from serve.guard.limits import RateLimit
from serve.guard.login import Identity
from serve.policy.action_service import ActionService
from serve.settings import ServeSettings


class DriveSocket:
    """Answers the frames of a connection in order, each in its own format."""

    def __init__(self, action_service: ActionService, settings: ServeSettings):
        self._action_service = action_service
        self._settings = settings
        self._frames = RateLimit(settings.requests_per_s, 2 * settings.requests_per_s)

    async def drive(self, socket: WebSocket) -> None:
        """Serves a connection until the client leaves, is silent too long or sends bad frames."""
        identity: Identity = socket.scope["rlcar.identity"]
        name = socket.query_params.get("session")
        if name is not None and not (0 < len(name) <= 64 and name.isascii() and name.isprintable()):
            await socket.close(1008, "a session's name has 1 to 64 printable ASCII characters")
            return
        await socket.accept()
        # Without a name the session ends with the connection.
        session = name or f"socket:{id(socket):x}"
        bad_frames = 0
        try:
            while bad_frames < self._settings.bad_frames:
                async with asyncio.timeout(self._settings.socket_idle_s):
                    message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                bad_frames += not await self._answer(socket, message, identity.name, session)
            await socket.close(1008, "too many invalid frames")
        except TimeoutError:
            await socket.close(1001, "no frame came for too long")
        except WebSocketDisconnect:
            return
        finally:
            if name is None:
                self._action_service.sessions.close(identity.name, session)

    async def _answer(self, socket: WebSocket, message: Message, owner: str, session: str) -> bool:
        """Answers a frame; returns whether it was a valid request."""
        received_s = self._action_service.now_s()
        if wait_s := self._frames.wait_s(owner, received_s):
            # Not reading on slows the sender down.
            await asyncio.sleep(min(wait_s, 1.0))
        binary, text = message.get("bytes"), message.get("text")
        try:
            if binary is not None:
                checked = unpack_request(binary, self._action_service.interface, session)
                answer = await self._action_service.act(checked, owner, received_s)
                await socket.send_bytes(pack_answer(checked.step or 0, answer))
                return True
            data = (text or "").encode()
            if len(data) > self._settings.act_body_bytes:
                raise RequestError(
                    f"the frame has {len(data)} bytes, more than {self._settings.act_body_bytes}",
                    413,
                )
            request = decode_act(data)
            if request.session:
                raise RequestError(
                    "a frame cannot name a session: give it once, in /v1/drive?session=…"
                )
            request.session = session
            checked = check_request(request, self._action_service.interface)
            answer = await self._action_service.act(checked, owner, received_s)
            await socket.send_text(encode(answer).decode())
            return True
        except RequestError as error:
            answer = self._action_service.refuse(str(error), received_s)
            await socket.send_text(encode(answer).decode())
            return False
