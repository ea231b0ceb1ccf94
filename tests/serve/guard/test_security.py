"""The guard alone, around a minimal application that returns the sender and the body."""

import asyncio
import base64

import httpx
import pytest

from serve.guard.access import ROUTES
from serve.guard.limits import RateLimit
from serve.guard.security import Security
from serve.guard.tokens import TokenStore
from serve.settings import make_settings

HEADERS = {"host": "127.0.0.1:8000"}


async def _echo(scope, receive, send):
    if scope["type"] == "http":
        body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
        text = scope["rlcar.identity"].name.encode() + b" " + str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text})
    else:
        await receive()
        await send({"type": "websocket.accept"})


def _ask(app, method, path, **options):
    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as web:
            return await web.request(method, path, **options)

    return asyncio.run(ask())


@pytest.fixture
def store(tmp_path):
    return TokenStore(tmp_path / "tokens.json")


@pytest.fixture
def guarded(store):
    return Security(_echo, make_settings(auth=True, tokens=store.path))


def test_without_a_token_only_health_answers(guarded):
    assert _ask(guarded, "GET", "/health/live").status_code == 200
    answer = _ask(guarded, "GET", "/v1/models")
    assert answer.status_code == 401
    assert "Basic" in answer.headers["www-authenticate"]


def test_a_bearer_token_opens_what_its_scopes_say(guarded, store):
    secret = store.create("car", ["act"])
    headers = {"authorization": f"Bearer {secret}"}
    answer = _ask(guarded, "POST", "/v1/act", headers=headers, content=b"12345")
    assert answer.text == "car 5"
    assert _ask(guarded, "GET", "/v1/models", headers=headers).status_code == 403
    wrong = {"authorization": "Bearer x"}
    assert _ask(guarded, "POST", "/v1/act", headers=wrong).status_code == 401


def test_a_guesser_is_slowed_down_but_not_those_who_share_its_address(guarded, store):
    right = {"authorization": f"Bearer {store.create('car', ['read'])}"}
    wrong = {"authorization": "Bearer x"}
    statuses = [_ask(guarded, "GET", "/stats", headers=wrong).status_code for _ in range(25)]
    assert statuses[:20] == [401] * 20
    assert statuses[-1] == 429
    assert _ask(guarded, "GET", "/stats", headers=right).status_code == 200


def test_a_browser_logs_in_once_and_then_needs_its_csrf_token(guarded, store):
    secret = store.create("person", ["read", "drive"])
    basic = base64.b64encode(f"me:{secret}".encode()).decode()
    login = _ask(guarded, "GET", "/stats", headers={"authorization": f"Basic {basic}"})
    assert login.text.startswith("person")
    cookies = {cookie.partition("=")[0]: cookie for cookie in login.headers.get_list("set-cookie")}
    assert "HttpOnly" in cookies["rlcar_session"]
    assert "SameSite=Strict" in cookies["rlcar_session"]
    values = {name: text.partition("=")[2].split(";")[0] for name, text in cookies.items()}
    jar = {"cookie": "; ".join(f"{name}={value}" for name, value in values.items())}
    assert _ask(guarded, "GET", "/stats", headers=jar).status_code == 200
    assert _ask(guarded, "POST", "/control", headers=jar).status_code == 403
    good = jar | {"x-csrf-token": values["rlcar_csrf"]}
    assert _ask(guarded, "POST", "/control", headers=good).status_code == 200
    bad = jar | {"x-csrf-token": values["rlcar_csrf"][:-2] + "xx"}
    assert _ask(guarded, "POST", "/control", headers=bad).status_code == 403
    assert _ask(guarded, "GET", "/start", headers=good).status_code == 405


def test_basic_credentials_alone_change_nothing(guarded, store):
    secret = store.create("person", ["drive"])
    basic = base64.b64encode(f"me:{secret}".encode()).decode()
    headers = {"authorization": f"Basic {basic}"}
    assert _ask(guarded, "POST", "/control", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Basic !!!"},
        {"authorization": "Basic /w=="},
        {"authorization": "Bearer"},
        {"authorization": "Digest x"},
        {"cookie": "rlcar_session=a.1.b.c"},
        {"cookie": "rlcar_session="},
        {"cookie": ";;;==\x7f"},
    ],
)
def test_broken_credentials_are_nobody(guarded, store, headers):
    store.create("car", ["admin"])
    assert _ask(guarded, "GET", "/stats", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8000"}, 403),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8000"}, 421),
        ({"host": "[::1"}, 400),
        ({"host": ""}, 400),
    ],
)
def test_another_sites_page_may_not_change_anything(headers, status):
    app = Security(_echo, make_settings())
    assert _ask(app, "POST", "/control", headers=headers).status_code == status


CHANGING = [path for path, access in ROUTES.items() if access.is_changing]


@pytest.mark.parametrize("path", CHANGING)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_another_sites_page_changes_nothing_with_any_method(method, path):
    app = Security(_echo, make_settings())
    other_sites = (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of this machine
        {"sec-fetch-site": "what browsers may come to say"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"referer": "http://evil.example/127.0.0.1:8000"},
        {"referer": "http://127.0.0.1:9999/"},
    )
    for headers in other_sites:
        answer = _ask(app, method, path, params={"file": "2"}, headers=headers)
        assert answer.status_code == 403, headers
    ours = (
        {},  # a program, such as curl
        {"sec-fetch-site": "none"},  # typed into the address bar
        {"sec-fetch-site": "same-origin", "referer": "http://127.0.0.1:8000/"},
        {"origin": "http://127.0.0.1:8000"},
    )
    for headers in ours:
        assert _ask(app, method, path, headers=headers).status_code == 200, headers


@pytest.mark.parametrize("path", CHANGING)
def test_where_browsers_do_not_say_who_asks_a_get_changes_nothing(path):
    """Browsers send Sec-Fetch-Site only to https addresses and to the visitor's own machine."""
    headers = {"host": "car.example"}
    for settings, status in (
        ({"host": "0.0.0.0", "allow_anonymous": True}, 405),
        ({"allowed_hosts": ("car.example",)}, 405),
        ({"allowed_hosts": ("car.example",), "is_behind_tls": True}, 200),
    ):
        app = Security(_echo, make_settings(**settings))
        answer = _ask(app, "GET", path, headers=headers)
        assert answer.status_code == status, settings
        assert _ask(app, "POST", path, headers=headers).status_code == 200
        assert _ask(app, "GET", "/stats", headers=headers).status_code == 200


def test_an_allowed_origin_may():
    app = Security(_echo, make_settings(allowed_origins=("https://cars.example",)))
    headers = {"origin": "https://cars.example"}
    answer = _ask(app, "POST", "/control", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://cars.example"
    asked = _ask(app, "OPTIONS", "/v1/act", headers=headers)
    assert asked.status_code == 204
    assert "content-type" in asked.headers["access-control-allow-headers"]
    other = _ask(app, "GET", "/stats", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_bodies_have_limits_that_are_checked_before_anything_reads_them():
    app = Security(_echo, make_settings())
    assert _ask(app, "POST", "/control", content=b"x" * 4096).text.endswith(" 4096")
    assert _ask(app, "POST", "/control", content=b"x" * 4097).status_code == 413
    for path in ("/v1/act", "/v1/outcome", "/v1/rollout/command"):
        assert _ask(app, "POST", path, content=b"x" * 262_144).status_code == 200
        assert _ask(app, "POST", path, content=b"x" * 262_145).status_code == 413


def test_a_chunked_body_is_counted_as_it_comes():
    app = Security(_echo, make_settings())

    async def chunks():
        for _ in range(9):
            yield b"x" * 512

    assert _ask(app, "POST", "/control", content=chunks()).status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for():
    app = Security(_echo, make_settings(body_timeout_s=0.05))

    async def slow():
        yield b"x"
        await asyncio.sleep(0.2)
        yield b"x"

    assert _ask(app, "POST", "/control", content=slow()).status_code == 408


def test_a_client_has_a_rate_and_others_do_not_feel_it(store):
    settings = make_settings(auth=True, tokens=store.path, requests_per_s=5.0)
    app = Security(_echo, settings, clock=lambda: 100.0)
    secrets = [store.create(name, ["read"]) for name in ("one", "two")]
    headers = [{"authorization": f"Bearer {secret}"} for secret in secrets]
    statuses = [_ask(app, "GET", "/stats", headers=headers[0]).status_code for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2
    assert _ask(app, "GET", "/stats", headers=headers[1]).status_code == 200


def test_too_many_at_once_are_asked_to_come_again():
    waiting = asyncio.Event()

    async def slow(scope, receive, send):
        await waiting.wait()
        await _echo(scope, receive, send)

    async def ask():
        app = Security(slow, make_settings(in_flight=2))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as web:
            first = [asyncio.create_task(web.get("/stats")) for _ in range(2)]
            await asyncio.sleep(0.01)
            refused = await web.get("/stats")
            waiting.set()
            return refused, [await one for one in first]

    refused, served = asyncio.run(ask())
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert [one.status_code for one in served] == [200, 200]


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("1.1.1.1", "1.1.1.1"),
        ("2.2.2.2, 1.1.1.1", "1.1.1.1"),  # addresses that a client adds come before it
        ("2.2.2.2, 1.1.1.1, 10.0.0.7", "1.1.1.1"),
        ("2.2.2.2,1.1.1.1 , 10.0.0.7,fd00::1", "1.1.1.1"),
        ("10.0.0.8, 10.0.0.7", "10.0.0.8"),
        ("nonsense, 10.0.0.7", "nonsense"),
        (None, "9.9.9.9"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxys(forwarded, client):
    told = []

    async def application(scope, receive, send):
        told.append(scope["rlcar.identity"].name)
        await _echo(scope, receive, send)

    trusted = "10.0.0.0/8,fd00::/8"
    app = Security(application, make_settings(is_behind_haproxy=True, trusted_proxies=trusted))
    headers = [(b"host", b"localhost")]
    headers += [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    scope = {"type": "http", "method": "GET", "path": "/stats", "headers": headers}

    async def send(message):
        pass

    asyncio.run(app({**scope, "client": ("9.9.9.9", 1)}, None, send))
    assert told == [client]


def test_bodies_that_arrive_together_do_not_exceed_the_slots():
    async def statuses():
        arrived, told = asyncio.Event(), []

        async def works(scope, receive, send):
            await asyncio.sleep(60.0)

        async def receive():
            await arrived.wait()
            return {"type": "http.request", "body": b"x", "more_body": False}

        async def send(message):
            told.append(message.get("status"))

        app = Security(works, make_settings(in_flight=4))
        headers = [(b"host", b"localhost"), (b"content-length", b"1")]
        scope = {"type": "http", "method": "POST", "path": "/v1/act", "client": ("a", 1)}
        asks = [app({**scope, "headers": headers}, receive, send) for _ in range(40)]
        tasks = [asyncio.create_task(ask) for ask in asks]
        await asyncio.sleep(0.01)
        arrived.set()
        await asyncio.sleep(0.05)
        assert app.slots.taken == 4
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [status for status in told if status is not None]

    assert asyncio.run(statuses()) == [429] * 36


def test_a_client_has_a_share_of_the_slots_and_health_needs_none(store):
    """A slot is held until the answer begins, not until a slow client has read it."""

    async def streams(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60.0)

    async def works(scope, receive, send):
        await asyncio.sleep(60.0)

    async def statuses(application):
        settings = make_settings(in_flight=3, in_flight_per_client=2)
        app, told = Security(application, settings), []

        def request(client, path="/stats"):
            scope = {"type": "http", "method": "GET", "path": path, "client": (client, 1)}
            headers = [(b"host", b"localhost")]

            async def send(message):
                told.append(message.get("status"))

            return asyncio.create_task(app({**scope, "headers": headers}, None, send))

        asks = [("a", "/stats")] * 3 + [("b", "/stats")] * 2 + [("a", "/health/live")]
        tasks = [request(*ask) for ask in asks]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert app.slots.taken == 0
        return [status for status in told if status is not None]

    assert asyncio.run(statuses(works)) == [429, 429]
    assert asyncio.run(statuses(streams)) == [200] * 6


def test_every_answer_forbids_framing_sniffing_and_foreign_scripts(guarded):
    for path in ("/health/live", "/v1/models"):
        answer = _ask(guarded, "GET", path)
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_bucket_fills_up_again():
    limit = RateLimit(per_s=2.0, burst=2.0)
    assert [limit.wait_s("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert limit.wait_s("a", 0.5) == 0.0
    assert limit.wait_s("b", 0.5) == 0.0


def test_buckets_of_a_million_clients_do_not_fill_the_memory():
    limit = RateLimit(per_s=1.0, burst=1.0)
    for client in range(20_000):
        limit.wait_s(str(client), 0.0)
    assert len(limit._buckets) == 10_000


@pytest.mark.parametrize("path", [path for path, access in ROUTES.items() if access.is_socket])
@pytest.mark.parametrize(
    ("headers", "opened"),
    [
        ({b"origin": b"http://127.0.0.1:8000"}, True),
        ({}, True),  # a program
        ({b"origin": b"x://y"}, False),
        ({b"origin": b"null"}, False),
        ({b"origin": b"http://127.0.0.1:9999"}, False),
        ({b"origin": b"http://localhost:8000"}, False),
        ({b"sec-fetch-site": b"cross-site"}, False),
        ({b"sec-fetch-site": b"same-site"}, False),
    ],
)
def test_a_websocket_must_come_from_our_own_pages(path, headers, opened):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": path,
        "client": ("127.0.0.1", 5),
        "headers": [(b"host", b"127.0.0.1:8000"), *headers.items()],
    }
    asyncio.run(Security(_echo, make_settings())(scope, receive, send))
    kind = "websocket.accept" if opened else "websocket.close"
    assert sent[0]["type"] == kind
