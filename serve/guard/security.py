"""The guard around the whole application: who may ask for what, how much, and how often.

It reads headers and bodies before any route does. A route finds who asked in
`scope["rlcar.identity"]`, and a body that is whole and within its limit.
"""

import functools
import hmac
import time
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

import msgspec

from serve.guard.access import Access, UnprintableError, find_access
from serve.guard.limits import (
    CLOSE,
    BodyReader,
    Headers,
    Message,
    RateLimit,
    Receive,
    RefusedError,
    Send,
    Slot,
    Slots,
)
from serve.guard.origin_check import host_name, is_cross_origin
from serve.guard.request_headers import client_of, cookie_of, has_body, headers_of, password_of
from serve.guard.revocation import STILL_ADMITTED, RevocationMonitor
from serve.guard.tokens import SCOPES, Token, TokenStore
from serve.settings import LOOPBACK_NAMES, ServeSettings

Scope = MutableMapping[str, Any]

SESSION_COOKIE, CSRF_COOKIE, CSRF_HEADER = "rlcar_session", "rlcar_csrf", "x-csrf-token"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_NO_SNIFF = (b"x-content-type-options", b"nosniff")
SECURITY_HEADERS = [
    _NO_SNIFF,
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        b"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
]


class Identity(NamedTuple):
    """Who asks: a token's name, or an address where no authentication is on."""

    name: str
    scopes: frozenset[str]
    is_browser: bool = False

    def allows(self, scope: str) -> bool:
        """Whether it may do what needs `scope`."""
        return scope in self.scopes or "admin" in self.scopes


_EVERYTHING = frozenset(SCOPES)


class Security:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: Any,
        settings: ServeSettings,
        count: Callable[[str, str, int], None] = lambda method, path, status: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`count` hears of every answer: method, path, status."""
        self.app = app
        self._watched = RevocationMonitor(app)
        self._settings = settings
        self._count = count
        self._clock = clock
        self._tokens = TokenStore(settings.tokens) if settings.auth else None
        self._hosts = settings.host_names
        self._requests = RateLimit(settings.requests_per_s, 2 * settings.requests_per_s)
        self._changes = RateLimit(settings.changes_per_s, 2 * settings.changes_per_s)
        failures = settings.failed_logins_per_min
        self._failures = RateLimit(failures / 60.0, failures)
        self._reading = BodyReader(settings.body_timeout_s)
        self.slots = Slots(settings.in_flight, settings.in_flight_per_client)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admits a request, or answers it in the application's place."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        is_request = scope["type"] == "http"
        scope["rlcar.received_s"] = self._clock()
        cookies: Headers = []  # and what else the answer's headers need
        try:
            headers = headers_of(scope)
            access = _access_of(scope)
            origin = self._check_address(scope, headers, access)
            if origin is not None and scope.get("method") == "OPTIONS":
                raise RefusedError(204, "", [*_PREFLIGHT, *_cross_origin(origin)])
            if origin is not None:
                cookies += _cross_origin(origin)
            scope["rlcar.identity"] = self._identify(scope, headers, cookies, access)
            if access is None:
                raise RefusedError(404, "there is no such route")
            if is_request and access.scope is not None:  # Health is told at any load.
                self.slots.require(scope["rlcar.identity"].name)
            if is_request and access.scope is None and has_body(scope):
                raise RefusedError(413, "a health check has no body", CLOSE)
            if is_request:
                receive = await self._whole_body(scope, headers, receive)
                if access.scope is not None:  # Others may have taken the slots meanwhile.
                    self.slots.require(scope["rlcar.identity"].name)
        except RefusedError as refusal:
            self._count(scope.get("method", "WS"), scope["path"], refusal.status)
            await _refuse(scope, receive, send, refusal)
            return
        slot = self.slots.take(scope["rlcar.identity"].name if is_request else None)
        try:
            await self._watched(scope, receive, self._guarded(scope, send, cookies, slot))
        finally:
            slot.release()

    def _address(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Returns the client's address: behind HAProxy the last that is no trusted proxy's."""
        told = headers.get(b"x-forwarded-for")
        if not self._settings.is_behind_haproxy or not told:
            return client_of(str(scope["client"][0])) if scope.get("client") else "unknown"
        if not self._settings.trusted_proxies:
            return client_of(told.rpartition(b",")[2].strip().decode("latin-1"))
        # Each proxy adds the address that it was called from.
        addresses = [address.strip() for address in told.decode("latin-1").split(",")]
        untrusted = (one for one in reversed(addresses) if not self._settings.trusts(one))
        return client_of(next(untrusted, addresses[0]))

    def _check_address(
        self, scope: Scope, headers: dict[bytes, bytes], access: Access | None
    ) -> bytes | None:
        """Refuses what a page of another site may have sent from its visitor's browser.

        Returns the other origin if its pages may.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        name = host_name(host)
        if not name:
            raise RefusedError(400, "the Host header names no host")
        if self._hosts is not None and name not in self._hosts:
            raise RefusedError(
                421, "this server does not answer to that host name (--allowed-host)"
            )
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1") in self._settings.allowed_origins:
            return origin
        is_get = scope["type"] == "http" and scope["method"] in _SAFE_METHODS
        is_changing = access is not None and access.is_changing
        if is_get and not is_changing:
            return None
        if is_cross_origin(headers, host):
            raise RefusedError(403, "another site's page may not do that (--allowed-origin)")
        if is_get and not self._can_tell_sites_apart(name):
            # The request for an image of another site's page would look like a program's.
            raise RefusedError(
                405,
                "send this command with POST: outside the server's own machine GET changes nothing",
                _POST,
            )
        return None

    def _can_tell_sites_apart(self, name: str) -> bool:
        """Whether browsers send Sec-Fetch-Site: to this machine, and to https addresses."""
        return name in LOOPBACK_NAMES or self._settings.is_behind_tls

    def _identify(
        self,
        scope: Scope,
        headers: dict[bytes, bytes],
        cookies: Headers,
        access: Access | None,
    ) -> Identity:
        address = self._address(scope, headers)
        needed = access.scope if access is not None else None
        now_s = self._clock()
        # What does not exist needs a login too, so that a stranger learns nothing.
        if self._tokens is None or (access is not None and needed is None):
            identity = Identity(address, _EVERYTHING)
        else:
            identity = self._login(headers, address, now_s, cookies)
            if needed is not None and not identity.allows(needed):
                raise RefusedError(403, f"this token lacks the scope {needed}")
            if identity.is_browser:
                self._check_browser(scope, headers, access)
            if access is not None and access.is_endless:
                scope[STILL_ADMITTED] = functools.partial(
                    self._is_still_admitted, headers, identity
                )
        limit = self._changes if needed in ("drive", "admin") else self._requests
        if wait_s := limit.wait_s(identity.name, now_s):
            raise RefusedError(429, "too many requests", _retry_after(wait_s))
        return identity

    def _login(
        self,
        headers: dict[bytes, bytes],
        address: str,
        now_s: float,
        cookies: Headers,
    ) -> Identity:
        assert self._tokens is not None
        kind, token = self._find_token(headers)
        if token is None:
            # Only who fails is slowed down: others may come from the same address, a proxy's.
            if b"authorization" in headers and (wait_s := self._failures.wait_s(address, now_s)):
                raise RefusedError(429, "too many failed logins", _retry_after(wait_s))
            raise RefusedError(401, "who are you? Send a token", _CHALLENGE)
        if kind == "basic":
            known = self._tokens.check_cookie(cookie_of(headers, SESSION_COOKIE) or "")
            if known is not token:
                cookies += self._new_cookies(token)
        return Identity(token.name, frozenset(token.scopes), kind != "bearer")

    def _find_token(self, headers: dict[bytes, bytes]) -> tuple[str, Token | None]:
        """How somebody logs in (bearer, basic or cookie), and the living token that this shows."""
        assert self._tokens is not None
        kind, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "bearer":
            return "bearer", self._tokens.check(credentials.strip())
        if kind.lower() == "basic":
            return "basic", self._tokens.check(password_of(credentials))
        cookie = cookie_of(headers, SESSION_COOKIE)
        return "cookie", self._tokens.check_cookie(cookie) if cookie else None

    def _is_still_admitted(self, headers: dict[bytes, bytes], identity: Identity) -> bool:
        """Whether the same login would give the same rights now; who lost some connects again."""
        _, token = self._find_token(headers)
        if token is None or token.name != identity.name:
            return False
        return all(token.allows(scope) for scope in identity.scopes)

    def _check_browser(
        self, scope: Scope, headers: dict[bytes, bytes], access: Access | None
    ) -> None:
        """A browser sends its login by itself, so what changes something needs more than that."""
        if scope["type"] == "websocket":
            if b"origin" not in headers:
                raise RefusedError(403, "a browser's WebSocket names its origin")
            return
        if scope["method"] in _SAFE_METHODS:
            if access is not None and access.is_changing:
                raise RefusedError(405, "with authentication on this is POST alone", _POST)
            return
        session = cookie_of(headers, SESSION_COOKIE) or ""
        sent = headers.get(CSRF_HEADER.encode(), b"")
        if not session or not hmac.compare_digest(sent, self._csrf(session).encode()):
            raise RefusedError(
                403, f"the header {CSRF_HEADER} must repeat the cookie {CSRF_COOKIE}"
            )

    def _new_cookies(self, token: Token) -> Headers:
        assert self._tokens is not None
        session = self._tokens.make_cookie(token, self._settings.cookie_s)
        secure = "; Secure" if self._settings.is_behind_tls else ""
        tail = f"; Path=/; Max-Age={int(self._settings.cookie_s)}; SameSite=Strict{secure}"
        return [
            (b"set-cookie", f"{SESSION_COOKIE}={session}{tail}; HttpOnly".encode()),
            (b"set-cookie", f"{CSRF_COOKIE}={self._csrf(session)}{tail}".encode()),
        ]

    def _csrf(self, session: str) -> str:
        assert self._tokens is not None
        return self._tokens.sign("csrf:" + session)

    def _guarded(self, scope: Scope, send: Send, cookies: Headers, slot: Slot) -> Send:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The work is done. A client that reads slowly must not keep others waiting.
                slot.release()
                # JSON that no page shows needs one of them; each costs a microsecond.
                ours = [_NO_SNIFF] if scope["path"] == "/v1/act" else SECURITY_HEADERS
                message["headers"] = [*message.get("headers", ()), *ours, *cookies]
                self._count(scope["method"], scope["path"], message["status"])
            await send(message)

        return guarded if scope["type"] == "http" else send

    async def _whole_body(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> Receive:
        """Reads the body, which must be within its limit and come in time."""
        settings = self._settings
        limit = settings.act_body_bytes if scope["path"] == "/v1/act" else settings.body_bytes
        told = headers.get(b"content-length")
        if told is None and b"transfer-encoding" not in headers:
            return receive
        if told is not None and (not told.isdigit() or int(told) > limit):
            raise RefusedError(413, f"a body here has at most {limit} bytes", CLOSE)
        message = await self._reading.next(receive)
        body = message.get("body", b"")
        if message.get("more_body", False):
            deadline_s = self._clock() + settings.body_timeout_s
            parts, size = [body], len(body)
            while message.get("more_body", False):
                message = await self._reading.next(receive)
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit:
                    raise RefusedError(413, f"a body here has at most {limit} bytes", CLOSE)
                if self._clock() > deadline_s:
                    raise RefusedError(408, "the body did not come in time", CLOSE)
            body = b"".join(parts)
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay


_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, x-session-id"),
    (b"access-control-max-age", b"600"),
]
_POST = [(b"allow", b"POST")]
# One header each: Chromium reads only the first challenge of a header.
_CHALLENGE = [
    (b"www-authenticate", b'Basic realm="rlcar"'),
    (b"www-authenticate", b'Bearer realm="rlcar"'),
]


def _cross_origin(origin: bytes) -> Headers:
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]


def _access_of(scope: Scope) -> Access | None:
    try:
        return find_access(scope["type"], scope["path"])
    except UnprintableError:
        raise RefusedError(400, "the path holds characters that cannot be printed") from None


def _retry_after(wait_s: float) -> Headers:
    return [(b"retry-after", str(max(1, int(wait_s + 0.999))).encode())]


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: RefusedError) -> None:
    body = b"" if refusal.status == 204 else msgspec.json.encode({"error": refusal.error})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *refusal.headers,
        *SECURITY_HEADERS,
    ]
    if CLOSE[0] not in headers and has_body(scope):
        # The body was not read. An open connection would wait for the rest of it.
        headers += CLOSE
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # its websocket.connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.error})
            return
        kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
