"""The guard around the application: authentication, scopes, and limits of size and rate.

It reads headers and bodies before any route does. A route finds the sender in
`scope["rlcar.identity"]`, and a body that is complete and within its limit.
"""

import functools
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.guard.access import Access, UnprintableError, find_access
from serve.guard.limits import (
    CLOSE,
    BodyReader,
    Headers,
    RateLimit,
    RefusedError,
    Slot,
    Slots,
)
from serve.guard.login import SAFE_METHODS, Identity, Logins
from serve.guard.origin_check import host_name, is_cross_origin
from serve.guard.request_headers import client_of, has_body, headers_of
from serve.guard.responses import (
    ALLOW_POST,
    NO_SNIFF,
    PREFLIGHT,
    SECURITY_HEADERS,
    cross_origin,
    refuse,
    retry_after,
)
from serve.guard.revocation import STILL_ADMITTED, RevocationMonitor
from serve.guard.tokens import SCOPES
from serve.settings import LOOPBACK_NAMES, ServeSettings

_ALL_SCOPES = frozenset(SCOPES)
# Observations of many cars, many laps, and the file of a rollout.
_LONG_BODIES = frozenset(("/v1/act", "/v1/outcome", "/v1/rollout/command"))


class Security:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        count: Callable[[str, str, int], None] = lambda method, path, status: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`count` is called with the method, path and status of every answer."""
        self.app = app
        self._monitored = RevocationMonitor(app)
        self._settings = settings
        self._count = count
        self._clock = clock
        self._logins = Logins(settings) if settings.auth else None
        self._hosts = settings.host_names
        self._requests = RateLimit(settings.requests_per_s, 2 * settings.requests_per_s)
        self._changes = RateLimit(settings.changes_per_s, 2 * settings.changes_per_s)
        self._body_reader = BodyReader(settings.body_timeout_s)
        self.slots = Slots(settings.in_flight, settings.in_flight_per_client)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        is_request = scope["type"] == "http"
        scope["rlcar.received_s"] = self._clock()
        answer_headers: Headers = []
        try:
            headers = headers_of(scope)
            access = _access_of(scope)
            origin = self._check_origin(scope, headers, access)
            if origin is not None and scope.get("method") == "OPTIONS":
                raise RefusedError(204, "", [*PREFLIGHT, *cross_origin(origin)])
            if origin is not None:
                answer_headers += cross_origin(origin)
            scope["rlcar.identity"] = self._identify(scope, headers, answer_headers, access)
            if access is None:
                raise RefusedError(404, "there is no such route")
            if is_request and access.scope is not None:  # health checks are answered at any load
                self.slots.require(scope["rlcar.identity"].name)
            if is_request and access.scope is None and has_body(scope):
                raise RefusedError(413, "a health check has no body", CLOSE)
            if is_request:
                receive = await self._read_body(scope, headers, receive)
                if access.scope is not None:  # other requests may have taken the slots meanwhile
                    self.slots.require(scope["rlcar.identity"].name)
        except RefusedError as refusal:
            self._count(scope.get("method", "WS"), scope["path"], refusal.status)
            await refuse(scope, receive, send, refusal)
            return
        slot = self.slots.take(scope["rlcar.identity"].name if is_request else None)
        try:
            await self._monitored(scope, receive, self._guarded(scope, send, answer_headers, slot))
        finally:
            slot.release()

    def _address(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Returns the client's address; behind HAProxy, the last that is not a trusted proxy's."""
        forwarded = headers.get(b"x-forwarded-for")
        if not self._settings.is_behind_haproxy or not forwarded:
            return client_of(str(scope["client"][0])) if scope.get("client") else "unknown"
        if not self._settings.trusted_proxies:
            return client_of(forwarded.rpartition(b",")[2].strip().decode("latin-1"))
        # Each proxy appends the address of its client.
        addresses = [address.strip() for address in forwarded.decode("latin-1").split(",")]
        untrusted = (
            address for address in reversed(addresses) if not self._settings.trusts(address)
        )
        return client_of(next(untrusted, addresses[0]))

    def _check_origin(
        self, scope: Scope, headers: dict[bytes, bytes], access: Access | None
    ) -> bytes | None:
        """Refuses a request that a page of another site may have sent from its visitor's browser.

        Returns the origin if it is another one whose pages are allowed.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        name = host_name(host)
        if not name:
            raise RefusedError(400, "the Host header contains no valid host name")
        if self._hosts is not None and name not in self._hosts:
            raise RefusedError(
                421, "this server does not answer to that host name (--allowed-host)"
            )
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1") in self._settings.allowed_origins:
            return origin
        is_get = scope["type"] == "http" and scope["method"] in SAFE_METHODS
        is_changing = access is not None and access.is_changing
        if is_get and not is_changing:
            return None
        if is_cross_origin(headers, host):
            raise RefusedError(403, "another site's page may not do that (--allowed-origin)")
        if is_get and not self._sends_fetch_site(name):
            # A page of another site could send it as the request for an image, without a header
            # that distinguishes it from a program's.
            raise RefusedError(
                405,
                "send this command with POST: outside the server's own machine GET changes nothing",
                ALLOW_POST,
            )
        return None

    def _sends_fetch_site(self, name: str) -> bool:
        """Whether browsers send Sec-Fetch-Site: to this machine's names, and to https addresses."""
        return name in LOOPBACK_NAMES or self._settings.is_behind_tls

    def _identify(
        self,
        scope: Scope,
        headers: dict[bytes, bytes],
        answer_headers: Headers,
        access: Access | None,
    ) -> Identity:
        address = self._address(scope, headers)
        needed = access.scope if access is not None else None
        now_s = self._clock()
        # A route that does not exist needs a login too, so that strangers cannot probe for routes.
        if self._logins is None or (access is not None and needed is None):
            identity = Identity(address, _ALL_SCOPES)
        else:
            identity = self._logins.identify(headers, address, now_s, answer_headers)
            if needed is not None and not identity.allows(needed):
                raise RefusedError(403, f"this token lacks the scope {needed}")
            if identity.is_browser:
                self._logins.check_browser(scope, headers, access)
            if access is not None and access.is_endless:
                scope[STILL_ADMITTED] = functools.partial(
                    self._logins.is_still_admitted, headers, identity
                )
        limit = self._changes if needed in ("drive", "admin") else self._requests
        if wait_s := limit.wait_s(identity.name, now_s):
            raise RefusedError(429, "too many requests", retry_after(wait_s))
        return identity

    def _guarded(self, scope: Scope, send: Send, answer_headers: Headers, slot: Slot) -> Send:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The work is done: a client that reads slowly must not keep others waiting.
                slot.release()
                # An answer that no page shows needs only one of them; each costs a microsecond.
                ours = [NO_SNIFF] if scope["path"] == "/v1/act" else SECURITY_HEADERS
                message["headers"] = [*message.get("headers", ()), *ours, *answer_headers]
                self._count(scope["method"], scope["path"], message["status"])
            await send(message)

        return guarded if scope["type"] == "http" else send

    async def _read_body(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> Receive:
        """Reads the whole body, within its limits of size and time; returns a replacement."""
        settings = self._settings
        is_long = scope["path"] in _LONG_BODIES
        limit = settings.act_body_bytes if is_long else settings.body_bytes
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            return receive
        if length is not None and (not length.isdigit() or int(length) > limit):
            raise RefusedError(413, f"a body here has at most {limit} bytes", CLOSE)
        message = await self._body_reader.next(receive)
        body = message.get("body", b"")
        if message.get("more_body", False):
            deadline_s = self._clock() + settings.body_timeout_s
            parts, size = [body], len(body)
            while message.get("more_body", False):
                message = await self._body_reader.next(receive)
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise RefusedError(413, f"a body here has at most {limit} bytes", CLOSE)
                if self._clock() > deadline_s:
                    raise RefusedError(408, "the body did not arrive in time", CLOSE)
            body = b"".join(parts)
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay


def _access_of(scope: Scope) -> Access | None:
    try:
        return find_access(scope["type"], scope["path"])
    except UnprintableError:
        raise RefusedError(400, "the path contains characters that cannot be printed") from None
