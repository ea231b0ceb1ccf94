"""The guard's own answers, and the headers that it adds to the application's."""

import msgspec
from starlette.types import Receive, Scope, Send

from serve.guard.limits import CLOSE, Headers, RefusedError
from serve.guard.request_headers import has_body

NO_SNIFF = (b"x-content-type-options", b"nosniff")
SECURITY_HEADERS = [
    NO_SNIFF,
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
ALLOW_POST = [(b"allow", b"POST")]
PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, x-session-id"),
    (b"access-control-max-age", b"600"),
]


def cross_origin(origin: bytes) -> Headers:
    """Returns the headers that let the pages of an allowed origin read the answer."""
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]


def retry_after(wait_s: float) -> Headers:
    """Returns the header that tells the client when to try again, in whole seconds."""
    return [(b"retry-after", str(max(1, int(wait_s + 0.999))).encode())]


async def refuse(scope: Scope, receive: Receive, send: Send, refusal: RefusedError) -> None:
    """Answers a refused request, or refuses the handshake of a WebSocket."""
    body = b"" if refusal.status == 204 else msgspec.json.encode({"error": refusal.error})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *refusal.headers,
        *SECURITY_HEADERS,
    ]
    if CLOSE[0] not in headers and has_body(scope):
        # The body was not read, and an open connection would wait for the rest of it.
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
