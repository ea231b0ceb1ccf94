"""The connection of one client to its server, in one process and one event loop."""

import asyncio
import contextlib
import importlib
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from serve.api.frames import pack_request, unpack_answer
from serve.api.laps import LapOutcome, LapResult, LapResults
from serve.api.outcomes import Outcome
from serve.api.schema import ActAnswer, ObservationBatch
from serve.client.address import ServerAddress, ServerError
from serve.client.outcome import outcome_fields

# Import these now instead of at the first request: an import would count against its deadline, and
# a fork during an import deadlocks the child.
for _name in (
    *("anyio._backends._asyncio", "certifi", "concurrent.futures.thread", "encodings.idna"),
    "httpcore",
):
    importlib.import_module(_name)

# An unused TLS context, for http. It is made at import because OpenSSL's locks do not survive a
# fork.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CHECK_S = 10.0
_CLOSE_S = 1.0
_ANSWERS = msgspec.json.Decoder(ActAnswer)
_LAP_RESULTS = msgspec.json.Decoder(LapResults)


class _Connect(connect):
    """Follows no redirect: a token is only for the server that the user named."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class ServerConnection:
    """Sends one request at a time; belongs to the event loop and process in which it was made."""

    def __init__(
        self,
        server: ServerAddress,
        session: str,
        timeout_s: float,
        on_connect: Callable[[], None],
    ):
        """`on_connect` is called for every WebSocket that is opened."""
        self._server, self._session, self._timeout_s = server, session, timeout_s
        self._on_connect = on_connect
        self._headers = server.headers(session)
        # The observations of a session have an order, so its requests must have one too.
        self.lock = asyncio.Lock()
        self._socket: ClientConnection | None = None
        self._web = httpx.AsyncClient(
            headers=self._headers,
            timeout=timeout_s,
            verify=server.tls or _NO_TLS,
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Closes the HTTP connections and the WebSocket."""
        await self._web.aclose()
        if self._socket is not None:
            await self._socket.close()

    def drop(self) -> None:
        """Aborts the WebSocket; the next request opens another."""
        socket, self._socket = self._socket, None
        if socket is not None:
            with contextlib.suppress(RuntimeError):  # its loop may be closed
                socket.transport.abort()

    async def fetch_model(self) -> dict[str, Any]:
        """Returns the model that acts, with its settings; raises ServerError if there is none."""
        url = self._server.url
        try:
            answer = await self._web.get(f"{url}/v1/models/serving", timeout=_CHECK_S)
        except (httpx.HTTPError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ServerError(f"cannot reach {url}: {reason}") from error
        if answer.status_code != 200:
            raise ServerError(f"{url} answers {answer.status_code}: {answer.text[:200]}")
        try:
            return dict(answer.json())
        except (TypeError, ValueError) as error:
            raise ServerError(f"{url} is not a policy server: {answer.text[:200]}") from error

    async def report_laps(self, laps: Sequence[LapOutcome]) -> list[LapResult]:
        """Reports laps; raises ServerError if the server cannot be reached or refuses them all."""
        url = self._server.url
        content = msgspec.json.encode({"laps": laps})
        headers = {"content-type": "application/json"}
        try:
            answer = await self._web.post(
                f"{url}/v1/outcome", content=content, headers=headers, timeout=_CHECK_S
            )
        except (httpx.HTTPError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ServerError(f"cannot reach {url}: {reason}") from error
        if answer.status_code != 200:
            raise ServerError(f"{url} answers {answer.status_code}: {answer.text[:200]}")
        try:
            return _LAP_RESULTS.decode(answer.content).laps
        except msgspec.MsgspecError as error:
            raise ServerError(f"{url} is not a policy server: {answer.text[:200]}") from error

    async def act_by_http(
        self, batch: ObservationBatch, step: int, version: int | None, outcome: Outcome | None
    ) -> ActAnswer:
        """Requests actions over HTTP; a refusal becomes an answer with an error."""
        body = {
            "observations": batch.observation.astype(float).tolist(),
            "is_first": batch.is_first.tolist(),
            "session": self._session,
            "step": step,
            "deadline_ms": self._deadline_ms,
        }
        if version is not None:
            body["model_version"] = version
        if outcome is not None:
            body |= outcome_fields(outcome)
        headers = {"content-type": "application/json"}
        content = msgspec.json.encode(body)
        url = f"{self._server.url}/v1/act"
        answer = await self._web.post(url, content=content, headers=headers)
        if answer.status_code == 200:
            return _ANSWERS.decode(answer.content)
        return ActAnswer("fallback", None, 0.0, error=f"{answer.status_code}: {answer.text[:200]}")

    async def act_by_websocket(
        self, batch: ObservationBatch, step: int, outcome: Outcome | None
    ) -> ActAnswer:
        """Requests actions over the WebSocket, and opens it if there is none."""
        if self._socket is None:
            self._socket = await _Connect(
                self._server.socket_url(self._session),
                additional_headers=self._headers,
                compression=None,
                proxy=None,
                close_timeout=_CLOSE_S,
                ssl=self._server.tls,
            )
            self._on_connect()
        await self._socket.send(pack_request(batch, step, int(self._deadline_ms), outcome))
        while True:
            frame = await self._socket.recv()
            if isinstance(frame, str):
                return _ANSWERS.decode(frame)
            answered, answer = unpack_answer(frame)
            # A late answer belongs to an earlier observation, and is discarded.
            if answered == step:
                return answer

    @property
    def _deadline_ms(self) -> float:
        return min(1000.0, max(1.0, self._timeout_s * 1e3))
