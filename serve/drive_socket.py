"""`WS /v1/drive`: a car, or several, driven over one connection, in JSON or in binary frames."""

import asyncio
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from serve.api.frames import pack_answer, unpack_request
from serve.api.schema import (
    RequestError,
    checked,
    decode_act,
    encode,
)
from serve.guard.limits import RateLimit
from serve.guard.security import Identity
from serve.policy.action_service import ActionService
from serve.settings import ServeSettings


class DriveSocket:
    """Answers one connection's frames, each in its own format, in their order."""

    def __init__(self, action_service: ActionService, settings: ServeSettings):
        self._action_service = action_service
        self._settings = settings
        self._frames = RateLimit(settings.requests_per_s, 2 * settings.requests_per_s)

    async def drive(self, socket: WebSocket) -> None:
        """Drives until the other side goes, falls silent or sends too much that is no request."""
        identity: Identity = socket.scope["rlcar.identity"]
        name = socket.query_params.get("session")
        if name is not None and not (0 < len(name) <= 64 and name.isascii() and name.isprintable()):
            await socket.close(1008, "a session's name has 1 to 64 plain characters")
            return
        await socket.accept()
        # Without a name the memory ends with the connection.
        own = name or f"socket:{id(socket):x}"
        bad_frames = 0
        try:
            while bad_frames < self._settings.bad_frames:
                async with asyncio.timeout(self._settings.socket_idle_s):
                    message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                bad_frames += not await self._answer(socket, message, identity.name, own)
            await socket.close(1008, "too many frames that are no requests")
        except TimeoutError:
            await socket.close(1001, "nothing came for too long")
        except WebSocketDisconnect:
            return
        finally:
            if name is None:
                self._action_service.sessions.close(identity.name, own)

    async def _answer(self, socket: WebSocket, message: Any, owner: str, session: str) -> bool:
        """Answers a frame; False if it was none."""
        received_s = self._action_service.now_s()
        if wait_s := self._frames.wait_s(owner, received_s):
            # Reading no further is what slows a sender down.
            await asyncio.sleep(min(wait_s, 1.0))
        binary, text = message.get("bytes"), message.get("text")
        try:
            if binary is not None:
                asked = unpack_request(binary, self._action_service.allowed, session)
                answer = await self._action_service.act(asked, owner, received_s)
                await socket.send_bytes(pack_answer(asked.step or 0, answer))
                return True
            data = (text or "").encode()
            if len(data) > self._settings.act_body_bytes:
                raise RequestError(f"a frame of {len(data)} bytes", 413)
            request = decode_act(data)
            if request.session:
                raise RequestError("a connection names its session once: /v1/drive?session=…")
            request.session = session
            asked = checked(request, self._action_service.allowed)
            answer = await self._action_service.act(asked, owner, received_s)
            await socket.send_text(encode(answer).decode())
            return True
        except RequestError as error:
            refused = self._action_service.refused(str(error), received_s)
            await socket.send_text(encode(refused).decode())
            return False
