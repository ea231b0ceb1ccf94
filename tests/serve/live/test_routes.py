"""The page's routes, as old clients and attackers use them."""

import contextlib
import gzip
import json
import re
import shutil
import subprocess
import time
from urllib.parse import urljoin

import httpx
import pytest
import simplejpeg
import uvicorn
from starlette.applications import Starlette

from serve.guard.access import ROUTES
from serve.live.routes import PAGE, live_routes
from serve.live.session import open_live
from serve.live.video import MAX_WATCHING, MAX_WATCHING_PER_OWNER
from tests.serve.live.live_page import on_a_port, paged
from tests.serve.served import publish
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "models"
    for seed in range(3):
        publish(folder, seed)
    with paged(folder, changes_per_s=1000.0) as page:
        yield page


@pytest.fixture
def web(page):
    yield page.web
    page.live.drive.is_manual = page.live.drive.is_running = False


@pytest.mark.parametrize(
    ("path", "status"), [("/start", "started"), ("/stop", "stopped"), ("/reset", "reset")]
)
def test_commands_answer_what_they_did(web, path, status):
    assert web.post(path).json() == {"status": status}


@pytest.mark.parametrize("path", ["/try", "/track", "/ghost", "/save_model"])
def test_a_compressed_body_is_an_unsupported_media_type(web, path):
    answer = web.post(path, content=gzip.compress(b"{}"), headers={"content-encoding": "gzip"})
    assert answer.status_code == 415
    assert answer.json() == {"error": "content-encoding 'gzip': send the body as it is"}


def test_the_page_works_behind_a_path_prefix(page, web):
    """Works like a proxy that removes the prefix from the path."""
    shown_at = "http://host/proxy/8131/"

    def at_the_server(url):
        assert url.startswith(shown_at), f"{url} is outside of the prefix"
        return "/" + url.removeprefix(shown_at)

    waiting, loaded = [shown_at], set()
    while waiting:
        url = waiting.pop()
        answer = web.get(at_the_server(url))
        assert answer.status_code == 200, url
        loaded.add(url)
        found = []
        if "html" in answer.headers["content-type"]:
            found = re.findall(r"""<(?:script|link)[^>]*(?:src|href)="([^"]+)\"""", answer.text)
        if "javascript" in answer.headers["content-type"]:
            found = re.findall(r"""from "(\.[^"]+)\"""", answer.text)
        waiting += {urljoin(url, one) for one in found} - loaded
    assert len(loaded) > 12
    for path in sorted({*re.findall(r"""href="([a-z_]+)\"""", web.get("/").text)}):
        with web.stream("GET", at_the_server(urljoin(shown_at, path))) as answer:
            assert answer.status_code == 200, path


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("prefix", ["", "proxy/8131/"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_commands_and_the_stream_go_below_a_path_prefix(scheme, prefix):
    base = f"{scheme}://host/{prefix}"
    script = f"""
        const asked = [];
        globalThis.document = {{ baseURI: "{base}?a=1#road", cookie: "" }};
        globalThis.location = new URL(document.baseURI);
        globalThis.fetch = async (url) =>
          {{ asked.push(String(url)); return new Response("{{}}"); }};
        globalThis.WebSocket = class {{ constructor(url) {{ asked.push(String(url)); }} }};
        const {{ get, post }} = await import("{PAGE}/js/api.js");
        const {{ Stream }} = await import("{PAGE}/js/stream.js");
        await post("stop"); await get("list_models"); new Stream({{}});
        console.log(JSON.stringify(asked));
    """
    command = ["node", "--input-type=module", "--no-warnings", "--eval", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    stream = base.replace("http", "ws", 1)
    assert json.loads(done.stdout) == [f"{base}stop", f"{base}list_models", f"{stream}live"]


def test_no_path_of_the_page_begins_at_the_root():
    for path in [PAGE / "index.html", PAGE / "style.css", *(PAGE / "js").iterdir()]:
        found = re.findall(r"""["'`(]/[a-z]\w*|location\.(?:host|origin)""", path.read_text())
        assert found == [], path.name


def test_old_clients_may_still_use_get_and_receive_a_deprecation_header(web):
    for path in ("/start", "/stop", "/reset", "/toggle_control", "/save_model"):
        answer = web.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["deprecation"].startswith("@"), path
    assert web.get("/load_model", params={"file": "1"}).headers["deprecation"]
    assert "deprecation" not in web.post("/start").headers
    assert "deprecation" not in web.get("/stats").headers


def test_start_and_stop_move_and_hold_the_car(page, web):
    web.post("/start")
    before = web.get("/stats").json()["steps"]
    wait_until(lambda: web.get("/stats").json()["steps"] > before)
    web.post("/stop")
    steps = web.get("/stats").json()["steps"]
    time.sleep(0.2)
    stats = web.get("/stats").json()
    assert (stats["steps"], stats["running"]) == (steps, False)


def test_control_drives_in_manual_mode(page, web):
    web.post("/reset")
    web.post("/start")
    assert web.post("/toggle_control").json() == {"status": "toggled", "manual_control": True}
    deadline_s = time.monotonic() + 20.0
    while page.live.drive.car.pose.speed_px_per_step < 0.5 and time.monotonic() < deadline_s:
        assert web.post("/control", json={"steering": 0.0, "throttle": 1}).json() == {
            "status": "ok"
        }
        time.sleep(0.05)
    assert page.live.drive.car.pose.speed_px_per_step >= 0.5
    assert web.post("/toggle_control").json()["manual_control"] is False


def test_stats_hold_the_last_hundred(page, web):
    stats = web.get("/stats").json()
    assert {
        *("episode_rewards", "losses", "exploration_rate", "steps_per_s", "uptime_s", "episodes")
    } <= stats.keys()
    assert len(stats["episode_rewards"]) <= 100
    assert stats["exploration_rate"] == 0.0


def test_a_saved_model_is_listed_first_and_can_be_loaded(web):
    known = [model["version"] for model in web.get("/list_models").json()["models"]]
    saved = web.post("/save_model").json()
    assert saved == {"status": "saved", "version": known[0] + 1}
    models = web.get("/list_models").json()["models"]
    assert [model["version"] for model in models] == [saved["version"], *known]
    assert web.post("/load_model", params={"file": "champion"}).json()["status"] == "loaded"
    assert web.post(f"/load_model?file={saved['version']}").json()["status"] == "loaded"


def test_a_ghost_is_set_and_taken_away(web):
    assert web.post("/ghost", json={"file": "2"}).json()["policy"] == "version 2"
    assert web.post("/ghost", json={"file": None}).json()["policy"] is None


def test_a_track_is_chosen_by_its_seed_or_the_next(web):
    assert web.post("/track", json={"seed": 10_005}).json() == {"status": "track", "seed": 10_005}
    assert web.post("/track", json={}).json()["seed"] == 10_006
    assert "no track 3 here" in web.post("/track", json={"seed": 3}).json()["error"]


def test_an_observation_can_be_tried(web):
    answer = web.post("/try", json={"observation": [0.5, 0.6, 1, 0.6, 0.5, 0.2]}).json()
    assert -1.0 <= answer["steering"] <= 1.0
    assert -1.0 <= answer["throttle"] <= 1.0


def test_health_and_metrics_tell_of_the_session(page, web):
    health = web.get("/health").json()
    assert health["status"] == "healthy"
    assert health["uptime_s"] > 0.0
    assert "rlcar_live_env_steps_total" in web.get("/metrics").text


def test_the_video_is_a_stream_of_jpegs(page, web):
    with web.stream("GET", "/video_feed") as stream:
        kind, _, boundary = stream.headers["content-type"].partition("; boundary=")
        assert kind == "multipart/x-mixed-replace"
        data = b""
        for part in stream.iter_raw():
            data += part
            if data.count(b"--" + boundary.encode()) > 2:
                break
    head, _, rest = data.partition(b"\r\n\r\n")
    assert head.startswith(b"--" + boundary.encode())
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    height, width, *_ = simplejpeg.decode_jpeg_header(rest[:length])
    assert (width, height) == (800, 600)


@pytest.mark.parametrize("path", [path for path, one in ROUTES.items() if not one.is_socket])
def test_head_ends_and_takes_no_place(page, path):
    """A proxy considers the answer complete after its headers, and reuses the connection."""
    with httpx.Client(base_url=f"http://{page.address}", timeout=30.0) as web:
        path = path.replace("{path:path}", "js/main.js").replace("{version}", "1")
        for _ in range(MAX_WATCHING + 1):
            # 404: there is nothing to draw yet.
            assert web.head(path).status_code in (200, 400, 403, 404, 405)
        assert web.get("/stats").status_code == 200


def test_video_watchers_are_limited_and_forgotten_when_they_leave(page):
    def client(address):
        transport = httpx.HTTPTransport(local_address=address)
        url = f"http://{page.address}"
        return httpx.Client(base_url=url, timeout=30.0, transport=transport)

    def status(web):
        with web.stream("GET", "/video_feed") as stream:
            return stream.status_code

    with (
        client("127.0.0.1") as one,
        client("127.0.0.2") as two,
        client("127.0.0.3") as three,
        contextlib.ExitStack() as streams,
    ):
        for web in (one, two):
            for _ in range(MAX_WATCHING_PER_OWNER):
                stream = streams.enter_context(web.stream("GET", "/video_feed"))
                assert stream.status_code == 200
            assert status(web) == 429  # each address has a limit,
        assert MAX_WATCHING == 2 * MAX_WATCHING_PER_OWNER
        assert status(three) == 429  # and there is a limit for all together
        streams.close()
        wait_until(lambda: status(three) == 200)


BAD_BODIES = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"not json",
    b"\xff\xfe",
    b'{"steering": NaN, "throttle": 0}',
    b'{"steering": Infinity, "throttle": 0}',
    b'{"steering": 1e999, "throttle": 0}',
    b'{"steering": 2, "throttle": 0}',
    b'{"steering": "0", "throttle": 0}',
    b'{"steering": true, "throttle": 0}',
    b'{"steering": null, "throttle": 0}',
    b'{"steering": [0], "throttle": 0}',
    b'{"steering": 0}',
    b'{"steering": 0, "throttle": -1.0000001}',
    b"[" * 3000,
]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_a_bad_control_is_refused_in_one_sentence(web, body):
    answer = web.post("/control", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("path", ["/control", "/try", "/track", "/ghost", "/save_model"])
def test_a_large_body_is_refused_unread(web, path):
    answer = web.post(path, content=b" " * 5000)
    assert answer.status_code == 413
    assert "4096" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {"observation": []},
        {"observation": [0.5] * 5},
        {"observation": [0.5] * 7},
        {"observation": [0.5] * 65},
        {"observation": [1.5] * 6},
        {"observation": ["a"] * 6},
        {"observation": "0.5"},
        {},
    ],
)
def test_an_observation_that_cannot_be_is_refused(web, body):
    answer = web.post("/try", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "file",
    [
        "",
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "versions/../../x",
        "C:\\windows",
        "x" * 300,
        "\0",
        "\n",
        "9999999999",
        "-1",
        "live",
        "nobody",
        "file:///etc/passwd",
        "\ud83d\ude97",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_model_that_is_none_is_refused_and_nothing_is_read(page, web, file, method):
    before = page.live.state()["policy"]
    file = file.encode("utf-16", "surrogatepass").decode("utf-16")
    answer = web.request(method, "/load_model", params={"file": file})
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert "root:" not in answer.text
    assert page.live.state()["policy"] == before


@pytest.mark.parametrize(
    "path", ["/page/../live.py", "/page/%2e%2e/live.py", "/page/..%2flive.py", "/page//etc/passwd"]
)
def test_no_path_leads_out_of_the_page(web, path):
    assert web.get(path).status_code == 404


def test_wrong_methods_are_refused(web):
    for method, path in [("GET", "/control"), ("DELETE", "/start"), ("POST", "/stats")]:
        assert web.request(method, path).status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_page_may_not_drive(page, web, headers):
    before = page.live.state()
    versions = web.get("/list_models").json()["models"]
    for path in ("/start", "/stop", "/reset", "/toggle_control", "/control", "/track", "/ghost"):
        for method in ("GET", "POST"):
            assert web.request(method, path, headers=headers).status_code == 403, (method, path)
    for method in ("GET", "POST"):
        answer = web.request(method, "/load_model", params={"file": "2"}, headers=headers)
        assert answer.status_code == 403
        assert web.request(method, "/save_model", headers=headers).status_code == 403
    assert page.live.state() == before
    assert web.get("/list_models").json()["models"] == versions


def test_where_browsers_log_in_a_get_changes_nothing(tmp_path):
    live = open_live(tmp_path)
    app = Starlette(routes=live_routes(live, legacy_get=False))
    with on_a_port(live, uvicorn.Config(app, port=0, log_config=None)) as page:
        web = page.web
        for path in ("/start", "/stop", "/reset", "/toggle_control", "/save_model", "/load_model"):
            assert web.get(path).status_code == 405, path
        assert web.post("/start").json() == {"status": "started"}
        assert "wait for the run's first save" in web.post("/save_model").json()["error"]
        assert web.post("/try", json={"observation": [0.5] * 6}).status_code == 400
        assert web.get("/").text.startswith("<!doctype html>")
