"""`rlcar serve`, `rlcar drive`, `rlcar tokens`: what is typed, and what may be typed wrong."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from benchmarks.processes import free_port
from serve.guard.tokens import TokenStore
from tests.serve.live.live_page import save_run
from tests.serve.served import publish
from tests.support.waiting import wait_until

RLCAR = Path(sys.executable).with_name("rlcar")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--lane", "fast"], "there are ray and realtime"),
        (["serve", "--host", "0.0.0.0"], "--allow-anonymous"),
        (["serve", "--lane", "realtime"], "train one (rlcar train)"),
        (["serve", "nowhere", "--lane", "realtime"], "nowhere"),
        (["serve", "nowhere", "--wait-for-model"], "leave out --wait-for-model, or the run"),
        (["serve", "--set", "waits_for_model=true"], "give it as --wait-for-model"),
        (["serve", "--port", "70000"], "--port 70000: give a number from 0 to 65,535"),
        (["serve", "--set", "deadline_ms=0"], "deadline_ms"),
        (["serve", "--set", "deadlin_ms=5"], "deadlin_ms"),
        (["serve", "--set", "deadline_ms"], "NAME=VALUE"),
        (["serve", "--auth", "--tokens", "none.json"], "rlcar tokens create"),
        (["serve", "--lane", "realtime", "--address", "auto"], "--address"),
        (["drive", "127.0.0.1:8000"], "http://HOST:PORT"),
        (["drive", "http://127.0.0.1:9"], "cannot reach"),
        (["tokens", "create", "a b", "--tokens", "t.json"], "hyphens"),
        (["tokens", "create", "a", "--scope", "fly", "--tokens", "t.json"], "read, act"),
        (["tokens", "create", "a", "--tokens", "."], "it is a folder, not a regular file"),
        (["tokens", "list", "--tokens", "."], "it is a folder, not a regular file"),
        *(
            (["tokens", "create", "a", "--tokens", "t.json", f"--expires-days={days}"], "36500")
            for days in ("nan", "inf", "-inf", "1e12", "1e999", "-1", "0", "-0.0", "36501")
        ),
        *(
            (["tokens", "rotate", "a", "--tokens", "t.json", f"--overlap-min={minutes}"], "minutes")
            for minutes in ("nan", "inf", "-inf", "1e12", "1e999", "-1")
        ),
        (["tokens", "revoke", "a", "--tokens", "t.json"], "no token 'a'"),
    ],
)
def test_a_mistake_is_one_sentence(rlcar, arguments, message):
    code, _, stderr = rlcar(*arguments)
    assert code == 2
    assert stderr.startswith("error: ")
    assert message in stderr
    assert len(stderr.splitlines()) == 1


def test_tokens_are_made_listed_rotated_and_revoked(rlcar):
    option = ("--tokens", "t.json")
    code, secret, _ = rlcar("tokens", "create", "car-7", "--scope", "act", *option)
    assert code == 0
    assert secret.startswith("rlcar_car-7_")
    assert secret.strip() not in Path("t.json").read_text()
    code, listed, _ = rlcar("tokens", "list", *option)
    assert "car-7" in listed
    assert "never" in listed
    _, rotated, _ = rlcar("tokens", "rotate", "car-7", *option)
    assert rotated != secret
    rlcar("tokens", "revoke", "car-7", *option)
    assert "revoked" in rlcar("tokens", "list", *option)[1]


@pytest.mark.parametrize(
    "number", ["1e12", "-1e12", "1e300", "-1e300", "1e999", "NaN", "253402300800"]
)
def test_a_file_of_tokens_with_silly_times_is_listed_or_refused_in_a_sentence(rlcar, number):
    text = '{"signing_key": "", "tokens": [{"name": "car", "scopes": ["act"], "hashes": {"x": 1.5},'
    text = text.replace("1.5", number) + f' "created_s": {number}}}]}}'
    Path("t.json").write_text(text)
    code, listed, stderr = rlcar("tokens", "list", "--tokens", "t.json")
    if code:
        assert stderr.startswith("error: ")
        assert "restore it" in stderr
        assert len(stderr.splitlines()) == 1
    else:
        assert "car" in listed
        assert stderr == ""


@contextlib.contextmanager
def _running(folder, *options, until=("ready", 200)):
    """The program itself, as a person starts it; yields its address."""
    route, status = until
    port = free_port()
    command = [RLCAR, "serve", "--port", str(port), *options]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health/{route}").status_code == status:
                    break
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.1)
        yield url
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGTERM), output
        assert "Traceback" not in output
    finally:
        process.kill()
        process.wait()


def test_the_realtime_lane_serves_until_it_is_told_to_stop(tmp_path):
    publish(tmp_path / "models")
    with _running(tmp_path, "--lane", "realtime") as url:
        answer = httpx.post(f"{url}/v1/act", json={"observation": [0.5] * 6})
        assert answer.json()["source"] == "model"


def _mount(folder, revision):
    """Replaces a mounted Secret as Kubernetes does: all its files at once, through a link."""
    data, before = folder / "..data", (folder / "..data").resolve()
    store = TokenStore(folder / revision / "tokens.json")
    secret = store.create(revision.strip("."), ["read"])
    (folder / "..next").symlink_to(revision)
    (folder / "..next").replace(data)
    if before != data:
        shutil.rmtree(before)
    with contextlib.suppress(FileExistsError):
        (folder / "tokens.json").symlink_to("..data/tokens.json")
    return secret


def test_the_server_follows_a_secret_that_is_replaced_while_it_runs(tmp_path):
    publish(tmp_path / "models")
    old = _mount(tmp_path / "mounted", "..old")
    options = ("--lane", "realtime", "--auth", "--tokens", str(tmp_path / "mounted/tokens.json"))
    with _running(tmp_path, *options) as url:

        def status(secret):
            headers = {"authorization": f"Bearer {secret}"}
            return httpx.get(f"{url}/v1/models", headers=headers).status_code

        assert status(old) == 200
        new = _mount(tmp_path / "mounted", "..new")
        end_s = time.monotonic() + 30.0
        while status(new) != 200:
            assert time.monotonic() < end_s
            time.sleep(0.1)
        assert status(old) == 401


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "mine")


# tests/serve/lanes/test_ray_stop.py has a server on Ray wait.
def test_a_server_that_waits_serves_the_first_version_and_publishes_no_run(tmp_path, run):
    shutil.copytree(run, tmp_path / "runs" / "mine")
    options = ("--lane", "realtime", "--wait-for-model")
    with _running(tmp_path, *options, until=("ready", 503)) as url:
        answer = httpx.post(f"{url}/v1/act", json={"observation": [0.5] * 6}).json()
        assert (answer["source"], answer["model_version"]) == ("fallback", None)
        publish(tmp_path / "models", alias=None)
        wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
        assert httpx.get(f"{url}/v1/models/serving").json()["description"] == "drawn from seed 0"


@pytest.mark.parametrize("options", [(), ("--page",)], ids=["alone", "with the page"])
def test_a_named_run_is_served_and_the_champion_stays(tmp_path, run, options):
    publish(tmp_path / "models")
    with _running(tmp_path, str(run), "--lane", "realtime", *options) as url:
        assert httpx.get(f"{url}/v1/models/serving").json()["version"] == 2
        assert httpx.get(f"{url}/v1/models/champion").json()["version"] == 1
        if options:
            acted = httpx.post(f"{url}/try", json={"observation": [0.5] * 6}).json()
            assert acted["policy"] == "version 2"
