"""The scope that each route needs: every route of the application, requested in unusual ways."""

import asyncio
from urllib.parse import quote

import httpx
import pytest
from starlette.routing import Match, Mount, WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from serve.app import Application
from serve.guard.access import ROUTES, find_access, legacy_methods
from serve.guard.security import Security
from serve.guard.tokens import SCOPES, TokenStore
from serve.live.routes import live_routes
from serve.live.session import open_live
from serve.settings import make_settings
from tests.serve.live.live_page import paged
from tests.serve.served import publish

# Suffixes of a path: a router, a proxy or a log may treat the result like the path without them.
ODD = [
    *(chr(code) for code in range(0x20)),
    *("\x7f", "\x85", "\xa0", "\xad", "\u200b", "\u2028", "\u2029", "\ufeff", "\ud800", "\ufffd"),
    *(
        " ",
        "  ",
        "/",
        "//",
        "/.",
        "/..",
        ";",
        ";x=1",
        ".",
        "\\",
        "%",
        "%0a",
        "%00",
        "\r\n",
        "#",
        "?",
    ),
]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    """Every route, by the name that it must have in the table."""
    folder = tmp_path_factory.mktemp("registry")
    page = live_routes(open_live(folder))
    application = Application(make_settings(registry=str(folder)), page)
    named = {}
    for route in application._others.routes:
        suffix = "/{path:path}" if isinstance(route, Mount) else ""
        named.setdefault(route.path + suffix, route)
    return named


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TokenStore(tmp_path_factory.mktemp("tokens") / "tokens.json")


@pytest.fixture(scope="module")
def secrets(store):
    return {scope: store.create(scope, [scope]) for scope in SCOPES}


def test_every_route_declares_its_scope_and_no_other_is_declared(routes):
    # Only `/v1/act` is answered before the router.
    assert {*routes, "/v1/act"} == set(ROUTES)
    for name, route in routes.items():
        assert ROUTES[name].is_socket == isinstance(route, WebSocketRoute), name


def test_what_answers_to_post_changes_something_or_acts(routes):
    for name, route in routes.items():
        methods = getattr(route, "methods", None) or set()
        assert ROUTES[name].is_changing == ("POST" in methods), name
        if "POST" in methods:
            assert set(legacy_methods(name)) == methods - {"HEAD"}, name
            allowed = ("act",) if name == "/v1/outcome" else ("drive", "admin")
            assert ROUTES[name].scope in allowed, name


@pytest.mark.parametrize(
    ("kind", "path", "scope"),
    [
        ("http", "/health/live", None),
        ("http", "/v1/models", "read"),
        ("http", "/v1/models/champion", "read"),
        ("http", "/page/js/main.js", "read"),
        ("http", "/v1/act", "act"),
        ("websocket", "/v1/drive", "act"),
        ("websocket", "/live", "read"),
        ("http", "/start", "drive"),
        ("http", "/try", "drive"),
        ("http", "/save_model", "admin"),
        ("http", "/load_model", "admin"),
    ],
)
def test_a_route_has_its_scope(kind, path, scope):
    access = find_access(kind, path)
    assert access is not None
    assert access.scope == scope


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("http", "/anything"),
        ("http", ""),
        ("http", "*"),
        ("http", "/v1/drive"),
        ("http", "/V1/act"),
        ("http", "/v1/models/"),
        ("http", "/v1/models/a/b"),
        ("http", "/page"),
        ("websocket", "/v1/act"),
        ("websocket", "/stats"),
    ],
)
def test_what_is_not_declared_is_not_there(kind, path):
    assert find_access(kind, path) is None


class _Reached:
    """Replaces the application, and records the requests that the guard passed on."""

    def __init__(self):
        self.scopes = []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)


async def _ask(guard, kind, method, path, secret):
    """Calls the guard like uvicorn; returns the status of its refusal, or None."""
    headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {secret}".encode())]
    raw = quote(path.encode("utf-8", "surrogatepass")).encode()
    scope = {"type": kind, "path": path, "raw_path": raw, "headers": headers, "root_path": ""}
    scope |= {"client": ("127.0.0.1", 5), "extensions": {"websocket.http.response": {}}}
    if kind == "http":
        scope["method"] = method
    sent = []

    async def receive():
        return {"type": "websocket.connect" if kind == "websocket" else "http.request"}

    async def send(message):
        sent.append(message)

    await guard(scope, receive, send)
    return sent[0]["status"] if sent else None


def _ways():
    return [("websocket", None), *(("http", method) for method in METHODS)]


def test_no_odd_path_is_accepted_with_a_token_that_lacks_the_scope(routes, store, secrets):
    """The router must not lead a request that passed the guard to a route of another scope."""
    reached = _Reached()
    settings = make_settings(auth=True, tokens=store.path, requests_per_s=1e9, changes_per_s=1e9)
    guard = Security(reached, settings)

    async def ask_all():
        for name in ROUTES:
            path = name.replace("{version}", "1").replace("{path:path}", "style.css")
            for odd in ("", *ODD):
                for asked in {path + odd, odd + path, path.replace("_", odd + "_")}:
                    for scope, secret in secrets.items():
                        for kind, method in _ways():
                            await _ask(guard, kind, method, asked, secret)
                            yield asked, scope

    async def check_all():
        count = 0
        async for asked, scope in ask_all():
            count += 1
            for let in reached.scopes:
                for name in _routed(routes, let):
                    needed = ROUTES[name].scope
                    assert needed in (None, scope) or scope == "admin", (asked, name, scope)
            reached.scopes.clear()
        return count

    assert asyncio.run(check_all()) > 10_000


def _routed(routes, scope):
    """Returns the route of Starlette's router, or the one path that does not use it."""
    if scope["type"] == "http" and scope["path"] == "/v1/act":
        return ["/v1/act"]
    return [name for name, route in routes.items() if route.matches(scope)[0] != Match.NONE]


@pytest.mark.parametrize("auth", [False, True])
def test_paths_that_cannot_be_printed_are_refused_and_unknown_ones_not_found(store, secrets, auth):
    reached = _Reached()
    settings = make_settings(auth=auth, tokens=store.path, failed_logins_per_min=1e9)
    guard = Security(reached, settings)

    async def statuses(path, secret):
        return {await _ask(guard, kind, method, path, secret) for kind, method in _ways()}

    for odd in ODD:
        if not odd.isprintable():
            for path in ("/save_model" + odd, "/v1/models/a" + odd, odd, "/page/" + odd + "/x"):
                assert asyncio.run(statuses(path, "")) == {400}, repr(path)
    for path in ("/nothing", "/save_model/", "//save_model", "/save_model;x", "/start "):
        assert asyncio.run(statuses(path, secrets["read"])) == {404}, path
        assert asyncio.run(statuses(path, "")) == ({401} if auth else {404}), path
    assert reached.scopes == []


def test_over_the_wire_a_line_feed_opens_nothing(tmp_path):
    folder = tmp_path / "models"
    publish(folder)
    store = TokenStore(tmp_path / "tokens.json")
    tokens = {scope: store.create(scope, [scope]) for scope in SCOPES}
    with paged(folder, auth=True, tokens=store.path) as page:
        for coded in ("%0a", "%0A", "%0d", "%00", "%e2%80%a8", "%0d%0a"):
            headers = {"authorization": f"Bearer {tokens['drive']}"}
            answer = httpx.post(f"http://{page.address}/save_model{coded}", headers=headers)
            assert answer.status_code == 400, coded
            headers = {"authorization": f"Bearer {tokens['read']}"}
            with pytest.raises(InvalidStatus) as caught:
                connect(f"ws://{page.address}/v1/drive{coded}", additional_headers=headers)
            assert caught.value.response.status_code == 400, coded
        assert page.web.get("/page/style.css").status_code == 401
        headers = {"authorization": f"Bearer {tokens['read']}"}
        assert page.web.get("/page/style.css", headers=headers).status_code == 200
        assert page.web.get("/nothing", headers=headers).status_code == 404
        versions = page.web.get("/list_models", headers=headers).json()["models"]
        assert [one["version"] for one in versions] == [1]
