"""Logins: how a request proves who sends it, by a bearer token, HTTP Basic, or a signed cookie."""

import hmac
from typing import NamedTuple

from starlette.types import Scope

from serve.guard.access import Access
from serve.guard.limits import Headers, RateLimit, RefusedError
from serve.guard.request_headers import cookie_of, password_of
from serve.guard.responses import ALLOW_POST, retry_after
from serve.guard.tokens import Token, TokenStore
from serve.settings import ServeSettings

SESSION_COOKIE, CSRF_COOKIE, CSRF_HEADER = "rlcar_session", "rlcar_csrf", "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# One header for each challenge: Chromium reads only the first challenge of a header.
_CHALLENGES = [
    (b"www-authenticate", b'Basic realm="rlcar"'),
    (b"www-authenticate", b'Bearer realm="rlcar"'),
]


class Identity(NamedTuple):
    """The sender of a request: a token's name, or an address where authentication is off."""

    name: str
    scopes: frozenset[str]
    is_browser: bool = False

    def allows(self, scope: str) -> bool:
        """Whether the sender may do what needs `scope`."""
        return scope in self.scopes or "admin" in self.scopes


class Logins:
    """Finds the token behind a request, and sets and checks the cookies of browsers."""

    def __init__(self, settings: ServeSettings):
        self._settings = settings
        self._tokens = TokenStore(settings.tokens)
        failures = settings.failed_logins_per_min
        self._failures = RateLimit(failures / 60.0, failures)

    def identify(
        self, headers: dict[bytes, bytes], address: str, now_s: float, answer_headers: Headers
    ) -> Identity:
        """Returns the sender; raises RefusedError without a valid login.

        A browser's first login adds its cookies to `answer_headers`.
        """
        kind, token = self._find_token(headers)
        if token is None:
            # Only failed logins are limited: other clients may share the address, a proxy's.
            if b"authorization" in headers and (wait_s := self._failures.wait_s(address, now_s)):
                raise RefusedError(429, "too many failed logins", retry_after(wait_s))
            raise RefusedError(401, "this request needs a valid token", _CHALLENGES)
        if kind == "basic":
            known = self._tokens.check_cookie(cookie_of(headers, SESSION_COOKIE) or "")
            if known is not token:
                answer_headers += self._new_cookies(token)
        return Identity(token.name, frozenset(token.scopes), kind != "bearer")

    def is_still_admitted(self, headers: dict[bytes, bytes], identity: Identity) -> bool:
        """Whether the same login still gives all scopes of `identity`."""
        _, token = self._find_token(headers)
        if token is None or token.name != identity.name:
            return False
        return all(token.allows(scope) for scope in identity.scopes)

    def check_browser(
        self, scope: Scope, headers: dict[bytes, bytes], access: Access | None
    ) -> None:
        """Refuses a browser's request that may have been sent without its user's intent.

        A browser attaches its login to every request, so a change needs a proof beyond the login.
        """
        if scope["type"] == "websocket":
            if b"origin" not in headers:
                raise RefusedError(403, "a browser's WebSocket must have an Origin header")
            return
        if scope["method"] in SAFE_METHODS:
            if access is not None and access.is_changing:
                raise RefusedError(
                    405, "with authentication on, only POST is allowed here", ALLOW_POST
                )
            return
        session = cookie_of(headers, SESSION_COOKIE) or ""
        sent = headers.get(CSRF_HEADER.encode(), b"")
        if not session or not hmac.compare_digest(sent, self._csrf(session).encode()):
            raise RefusedError(
                403, f"the header {CSRF_HEADER} must repeat the cookie {CSRF_COOKIE}"
            )

    def _find_token(self, headers: dict[bytes, bytes]) -> tuple[str, Token | None]:
        """Returns the kind of login (bearer, basic or cookie), and its token if that is valid."""
        kind, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "bearer":
            return "bearer", self._tokens.check(credentials.strip())
        if kind.lower() == "basic":
            return "basic", self._tokens.check(password_of(credentials))
        cookie = cookie_of(headers, SESSION_COOKIE)
        return "cookie", self._tokens.check_cookie(cookie) if cookie else None

    def _new_cookies(self, token: Token) -> Headers:
        session = self._tokens.make_cookie(token, self._settings.cookie_s)
        secure = "; Secure" if self._settings.is_behind_tls else ""
        tail = f"; Path=/; Max-Age={int(self._settings.cookie_s)}; SameSite=Strict{secure}"
        return [
            (b"set-cookie", f"{SESSION_COOKIE}={session}{tail}; HttpOnly".encode()),
            (b"set-cookie", f"{CSRF_COOKIE}={self._csrf(session)}{tail}".encode()),
        ]

    def _csrf(self, session: str) -> str:
        return self._tokens.sign("csrf:" + session)
