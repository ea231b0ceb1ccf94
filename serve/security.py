"""The guard around the whole application: who may ask for what, how much, and how often.

It reads headers and bodies before any route does. A route finds who asked in
`scope["rlcar.identity"]`, and a body that is whole and within its limit.
"""

import base64
import binascii
import functools
import hmac
import re
import time
from collections.abc import Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple

import msgspec

from serve.limits import (
    CLOSE,
    BodyReading,
    Headers,
    Message,
    RateLimit,
    Receive,
    RefusedError,
    Send,
)
from serve.settings import ServeSettings
from serve.tokens import SCOPES, Token, TokenStore

Scope = MutableMapping[str, Any]

SESSION_COOKIE, CSRF_COOKIE, CSRF_HEADER = "rlcar_session", "rlcar_csrf", "x-csrf-token"
OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
ACT_PATHS = frozenset({"/v1/act", "/v1/drive"})
ADMIN_PATHS = frozenset({"/save_model", "/load_model"})
# Routes that old clients call with GET although they change something.
CHANGING_PATHS = ADMIN_PATHS | {"/start", "/stop", "/reset", "/toggle_control", "/control"}
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


def required_scope(method: str, path: str) -> str | None:
    """The scope that a request needs, or None where anyone may look."""
    if path in OPEN_PATHS:
        return None
    if path in ACT_PATHS:
        return "act"
    if path in ADMIN_PATHS:
        return "admin"
    return "read" if method in _SAFE_METHODS and path not in CHANGING_PATHS else "drive"


class _Slot:
    """One of the requests that may be worked on at once."""

    __slots__ = ("_client", "_security")

    def __init__(self, security: "Security", client: str | None):
        """`client` holds it, or nobody."""
        self._security, self._client = security, client
        if client is not None:
            security.in_flight += 1
            security.in_flight_of[client] = security.in_flight_of.get(client, 0) + 1

    def release(self) -> None:
        """Gives the slot back, once."""
        client, self._client = self._client, None
        if client is not None:
            self._security.in_flight -= 1
            left = self._security.in_flight_of.pop(client) - 1
            if left:
                self._security.in_flight_of[client] = left


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
        self._settings = settings
        self._count = count
        self._clock = clock
        self._tokens = TokenStore(settings.tokens) if settings.auth else None
        self._hosts = settings.host_names
        self._requests = RateLimit(settings.requests_per_s, 2 * settings.requests_per_s)
        self._changes = RateLimit(settings.changes_per_s, 2 * settings.changes_per_s)
        failures = settings.failed_logins_per_min
        self._failures = RateLimit(failures / 60.0, failures)
        self._reading = BodyReading(settings.body_timeout_s)
        self.in_flight = 0
        self.in_flight_of: dict[str, int] = {}  # by client, those with any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admits a request, or answers it in the application's place."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        is_request = scope["type"] == "http"
        scope["rlcar.received_s"] = self._clock()
        cookies: Headers = []  # and what else the answer's headers need
        try:
            headers = _headers_of(scope)
            origin = self._check_address(scope, headers)
            if origin is not None and scope.get("method") == "OPTIONS":
                raise RefusedError(204, "", [*_PREFLIGHT, *_cross_origin(origin)])
            if origin is not None:
                cookies += _cross_origin(origin)
            scope["rlcar.identity"] = self._identify(scope, headers, cookies)
            if is_request:
                self._require_slot(scope)
            if is_request:
                receive = await self._whole_body(scope, headers, receive)
        except RefusedError as refusal:
            self._count(scope.get("method", "WS"), scope["path"], refusal.status)
            await _refuse(scope, receive, send, refusal)
            return
        slot = _Slot(self, scope["rlcar.identity"].name if is_request else None)
        try:
            await self.app(scope, receive, self._guarded(scope, send, cookies, slot))
        finally:
            slot.release()

    def _address(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Returns the client's address: behind HAProxy the last one that was forwarded."""
        if self._settings.is_behind_haproxy and (told := headers.get(b"x-forwarded-for")):
            return told.rpartition(b",")[2].strip().decode("latin-1")
        return str(scope["client"][0]) if scope.get("client") else "unknown"

    def _require_slot(self, scope: Scope) -> None:
        """Refuses a request when all slots are taken, or the client's share of them."""
        settings = self._settings
        if scope["path"] in OPEN_PATHS:  # Health checks are answered at any load.
            return
        own = self.in_flight_of.get(scope["rlcar.identity"].name, 0)
        if self.in_flight >= settings.in_flight or own >= settings.in_flight_per_client:
            raise RefusedError(429, "too many requests at once", [(b"retry-after", b"1")])

    def _check_address(self, scope: Scope, headers: dict[bytes, bytes]) -> bytes | None:
        """Refuses what a page of another site may have sent from its visitor's browser.

        Returns the other origin if its pages may.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        name = _host_name(host)
        if not name:
            raise RefusedError(400, "the Host header names no host")
        if self._hosts is not None and name not in self._hosts:
            raise RefusedError(
                421, "this server does not answer to that host name (--allowed-host)"
            )
        origin = headers.get(b"origin")
        is_safe = scope["type"] == "http" and scope["method"] in _SAFE_METHODS
        if origin is None:
            if headers.get(b"sec-fetch-site") == b"cross-site" and not is_safe:
                raise RefusedError(403, "another site's page may not do that")
            return None
        where = origin.decode("latin-1")
        if where in self._settings.allowed_origins:
            return origin
        if not is_safe and where.lower().partition("://")[2] != host.lower():
            raise RefusedError(403, "another origin's page may not do that (--allowed-origin)")
        return None

    def _identify(self, scope: Scope, headers: dict[bytes, bytes], cookies: Headers) -> Identity:
        method = scope.get("method", "GET")
        path = scope["path"]
        address = self._address(scope, headers)
        needed = required_scope(method, path)
        now_s = self._clock()
        if self._tokens is None or needed is None:
            identity = Identity(address, _EVERYTHING)
        else:
            identity = self._login(headers, address, now_s, cookies)
            if not identity.allows(needed):
                raise RefusedError(403, f"this token lacks the scope {needed}")
            if identity.is_browser:
                self._check_browser(scope, headers)
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
        kind, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        token: Token | None = None
        is_browser = False
        if kind.lower() == "bearer":
            token = self._tokens.check(credentials.strip())
        elif kind.lower() == "basic":
            token, is_browser = self._tokens.check(_password(credentials)), True
            known = self._tokens.check_cookie(_cookie(headers, SESSION_COOKIE) or "")
            if token is not None and known is not token:
                cookies += self._new_cookies(token)
        elif cookie := _cookie(headers, SESSION_COOKIE):
            token, is_browser = self._tokens.check_cookie(cookie), True
        if token is None:
            # Only who fails is slowed down: others may come from the same address, a proxy's.
            if kind and (wait_s := self._failures.wait_s(address, now_s)):
                raise RefusedError(429, "too many failed logins", _retry_after(wait_s))
            raise RefusedError(401, "who are you? Send a token", _CHALLENGE)
        return Identity(token.name, frozenset(token.scopes), is_browser)

    def _check_browser(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """A browser sends its login by itself, so what changes something needs more than that."""
        if scope["type"] == "websocket":
            if b"origin" not in headers:
                raise RefusedError(403, "a browser's WebSocket names its origin")
            return
        if scope["method"] in _SAFE_METHODS:
            if scope["path"] in CHANGING_PATHS:
                raise RefusedError(405, "with authentication on this is POST alone", _ALLOW_POST)
            return
        session = _cookie(headers, SESSION_COOKIE) or ""
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

    def _guarded(self, scope: Scope, send: Send, cookies: Headers, slot: "_Slot") -> Send:
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


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, x-session-id"),
    (b"access-control-max-age", b"600"),
]
_ALLOW_POST = [(b"allow", b"POST")]
# One header each: Chromium reads only the first challenge of a header.
_CHALLENGE = [
    (b"www-authenticate", b'Basic realm="rlcar"'),
    (b"www-authenticate", b'Bearer realm="rlcar"'),
]
# More than one of these, and two programs may read two different requests.
_SINGLE = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"authorization", b"origin", b"content-type"}
)


def _headers_of(scope: Scope) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers:
            if name in _SINGLE:
                raise RefusedError(400, f"more than one header {name.decode('latin-1')}", CLOSE)
            value = headers[name] + (b"; " if name == b"cookie" else b", ") + value
        headers[name] = value
    if b"content-length" in headers and b"transfer-encoding" in headers:
        raise RefusedError(400, "both Content-Length and Transfer-Encoding", CLOSE)
    return headers


def _cross_origin(origin: bytes) -> Headers:
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]


@functools.lru_cache(maxsize=256)
def _host_name(host: str) -> str | None:
    match = _HOST.fullmatch(host)
    return match[1].lower().strip("[]") if match else None


def _password(credentials: str) -> str:
    """The token of `name:token` in base64; the name is the person's own affair."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _cookie(headers: dict[bytes, bytes], name: str) -> str | None:
    try:
        jar = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return None
    return jar[name].value if name in jar else None


def _retry_after(wait_s: float) -> Headers:
    return [(b"retry-after", str(max(1, int(wait_s + 0.999))).encode())]


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


async def _refuse(scope: Scope, receive: Receive, send: Send, refusal: RefusedError) -> None:
    body = b"" if refusal.status == 204 else msgspec.json.encode({"error": refusal.error})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *refusal.headers,
        *SECURITY_HEADERS,
    ]
    if CLOSE[0] not in headers and _has_body(scope):
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
